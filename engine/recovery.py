"""The supervisor's dealings with an engine that dies: hear why, start another, see that it is the same again."""

from engine.children import Child
from engine.config import Config
from engine.errors import ExitCode, StartError
from engine.fleet import Fleet, Patience
from engine.restarts import Restarts
from transport.messages import EngineLost, Ready

LAST_WORDS_SECONDS = 2.0  # an engine that exits by itself has said why: it was sent before the exit, and is on its way


class Recovery:
    """What is known of the engine's deaths, and of the time that the present engine has for its next step."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._restarts = Restarts(config.run.engine_restarts)
        self._first: Ready | None = None
        self._words: EngineLost | None = None
        self._patience: Patience | None = None  # with one that starts again, or that is about to end

    # --- what is heard ------------------------------------------------------------------------------------------------

    def progress(self) -> None:
        """A task became durable."""
        self._restarts.progress()

    def heard(self, words: EngineLost) -> None:
        """The engine said its last words: it may take some time to end, but not for ever."""
        self._words = words
        self._patience = Patience(self._config.run.stall_seconds)

    def welcome(self, ready: Ready) -> None:
        """An engine is ready. Tasks, ids and vectors of one that was started again must be as they were.

        Raises:
            StartError: it has other models than the first engine (models-changed), or another device (device-lost).
        """
        first = self._first = self._first or ready
        if (ready.models, ready.frame_format) != (first.models, first.frame_format):
            raise StartError("models-changed", "the models were exchanged during the run; run again")
        if ready.device != first.device:
            raise StartError(
                "device-lost", f"the engine ran on {first.device}, and now finds only {ready.device}; see run.py doctor"
            )
        self._patience = None

    def is_heard_out(self, engine: Child, patience: Patience) -> bool:
        """Whether nothing more is to come from an engine that is dead."""
        says_why = engine.process.exitcode in (ExitCode.DEVICE_LOST, ExitCode.RECYCLE)
        return not says_why or self._words is not None or patience.is_over

    def reason(self, engine: Child) -> str:
        """Why it died, in one line."""
        if self._words is not None:
            return f"the engine was lost: {self._words.code}: {self._words.message}"
        return engine.last_words()

    # --- what is done -------------------------------------------------------------------------------------------------

    def hurry(self, fleet: Fleet) -> None:
        """Bound the time of an engine that starts again, and of one that has said its last words.

        Raises:
            StartError: it is not ready after run.start_timeout_seconds.
        """
        if self._patience is None or not self._patience.is_over:
            return
        if self._words is None:
            raise fleet.late()
        fleet.engine.kill()  # a lost device can hold up the end of its process

    def died(self, engine: Child) -> None:
        """Take note of a death.

        Raises:
            StartError: it could not start, for a reason that a successor would meet as well.
        """
        if engine.failed_at_start:
            raise engine.failure()
        self._restarts.lost(self._words)

    def restart(self, fleet: Fleet) -> None:
        """Start a successor, and new decoders.

        Raises:
            StartError: it died more than run.engine_restarts times in a row with nothing done in between.
        """
        if not self._restarts.may_restart:
            count = self._restarts.fruitless - 1
            times = f"restarted {count} time{'s' * (count != 1)} with no task done in between (run.engine_restarts)"
            raise StartError("engine-died", f"{self.reason(fleet.engine)}; {times}")
        fleet.replace_engine(self._restarts.suspects, self._restarts.condemned)
        self._words = None
        self._patience = Patience(self._config.run.start_timeout_seconds)
