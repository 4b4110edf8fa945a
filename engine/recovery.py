"""The supervisor's dealings with an engine that dies: hear why, start another, see that it is the same again."""

from engine.children import Child
from engine.config import Config
from engine.errors import ExitCode, StartError
from engine.fleet import Fleet, Patience
from engine.restarts import Restarts
from transport.messages import EngineLost, Ready

LAST_WORDS_SECONDS = 2.0  # an engine that exits by itself has said why: it was sent before the exit, and is on its way


class Recovery:
    """What is known of the engine's deaths, and of the time that a dying one has to end."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._restarts = Restarts(config.run.engine_restarts)
        self.first: Ready | None = None  # of the first engine: what all of them are
        self._words: EngineLost | None = None
        self._patience: Patience | None = None  # with one that is about to end

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
        first = self.first = self.first or ready
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
        """Bound the time of an engine that has said its last words."""
        if self._patience is not None and self._patience.is_over:
            fleet.engine.kill()  # a lost device can hold up the end of its process

    def died(self, engine: Child, bear: bool) -> None:
        """Take note of a death. bear: even of one that could not start, for its reason may pass.

        Raises:
            StartError: it could not start, for a reason that a successor would meet as well.
        """
        if engine.failed_at_start and not bear:
            raise engine.failure()
        self._patience = None
        self._restarts.lost(self._words)

    @property
    def is_fruitless(self) -> bool:
        """Whether it died several times in a row without a word, and nothing was done in between."""
        return self._words is None and self._restarts.fruitless > 1

    def check(self, engine: Child, endless: bool) -> None:
        """Whether there is to be a successor.

        Raises:
            StartError: it died more than run.engine_restarts times in a row with nothing done in between.
        """
        if not self._restarts.may_restart and not endless:
            count = self._restarts.fruitless - 1
            times = f"restarted {count} time{'s' * (count != 1)} with no task done in between (run.engine_restarts)"
            raise StartError("engine-died", f"{self.reason(engine)}; {times}")

    def restart(self, fleet: Fleet) -> None:
        """Start a successor, and new decoders; the old ones were ended."""
        fleet.replace_engine(self._restarts.suspects, self._restarts.condemned)
        self._words = None
