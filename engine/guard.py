"""Watches the children: who has which task, who is silent for too long, who died; starts their successors.

What dies soon after its start is started again later each time (engine/backoff.py); what lived for long is replaced at
once. A run over files gives up on what cannot be mended; the daemon (`endless`) goes on trying, and says so.

What the board must be told of a death stays on a list here until the board has taken it: its book may be unavailable.
"""

import random
import signal
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from engine.backoff import Backoff
from engine.children import Child
from engine.config import Config
from engine.errors import ExitCode
from engine.fleet import Fleet, Patience
from engine.recovery import LAST_WORDS_SECONDS, Recovery
from engine.status import ProcessState
from engine.tasks import Board
from transport.messages import ConsumerReplaced, Drain, TaskKey
from transport.sockets import Received

HEAR_OUT_MS = 20  # for what lies in our socket when the engine is dead
SILENT = "said nothing for too long and was killed (run.engine_stall_seconds)"


class Guard:
    """The children of one run, and what is known of each."""

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        recovery: Recovery,
        take: Callable[[Received[Any]], None],
        tell: Callable[[str, str], None],
        endless: bool,
    ) -> None:
        """take: gets messages that arrive while an engine's last words are waited for. tell: gets the
        role of a child that is gone and is replaced, and words for people.
        """
        self._config = config
        self._fleet = fleet
        self._recovery = recovery
        self._take = take
        self._tell = tell
        self._endless = endless
        self._assigned: dict[bytes, TaskKey] = {}  # by decoder identity
        self.decoded: dict[bytes, set[TaskKey]] = {}  # by decoder: sent whole, and not durable yet
        self._beats: dict[bytes, float] = {}
        self._begun: dict[bytes, float] = {}  # since when a child has had what it needs to get ready
        self._backoffs: dict[str, Backoff] = {}
        self._due: dict[str, float] = {}  # by name: when its successor is started
        self._losses: deque[tuple[TaskKey, str, bool]] = deque()  # the board is still to be told of them
        self._engine_gone: str | None = None  # … and of this
        self._was_ready: set[str] = set()  # names of children of which one was ready once
        self._silent_engine = False
        self._consumer_deaths = 0  # since the last task that became durable
        self.restarts: Counter[str] = Counter()  # by name
        self._was_solo = False  # when the engine died
        self.solo = False  # one task at a time, to see which one the engine dies of

    # --- what is heard ------------------------------------------------------------------------------------------------

    def heard(self, child: Child) -> None:
        """It is alive."""
        self._beats[child.identity] = time.monotonic()

    def ready(self, child: Child) -> None:
        """It can take work; a consumer that took another's place gets what that one had not acknowledged."""
        child.ready = True
        if child.spec.role == "consumer" and child.name in self._was_ready:
            self._fleet.send(self._fleet.engine, ConsumerReplaced())
        self._was_ready.add(child.name)

    def assign(self, decoder: Child, key: TaskKey) -> None:
        """It was given this task."""
        self._assigned[decoder.identity] = key
        self._beats[decoder.identity] = time.monotonic()

    def is_idle(self, decoder: Child) -> bool:
        """Whether it can be given a task."""
        return decoder.ready and decoder.is_alive and decoder.identity not in self._assigned

    def free(self, identity: bytes) -> None:
        """It has no task any more."""
        self._assigned.pop(identity, None)

    def sent_whole(self, identity: bytes, key: TaskKey) -> None:
        """A decoder has given all of a task to its socket."""
        self.free(identity)
        self.decoded.setdefault(identity, set()).add(key)

    def durable(self, key: TaskKey) -> None:
        """A task is done: nothing of it can be lost any more."""
        for keys in self.decoded.values():
            keys.discard(key)
        self._consumer_deaths = 0
        self.solo = False

    # --- watching -----------------------------------------------------------------------------------------------------

    def watch(self, board: Board | None, ending: bool) -> bool:
        """Replace who died or stalls; False: the engine died in a run that was ending, which therefore ends here.

        Raises:
            SluiceError: a component could not start or go on. LedgerUnavailable: call again.
        """
        self._watch_consumer()
        if not self._watch_engine(board, ending):
            return False
        self._watch_decoders(board, ending)
        self._tell_board(board)
        return True

    def _tell_board(self, board: Board | None) -> None:
        now = time.monotonic()
        while self._losses and board is not None:
            key, reason, strange = self._losses[0]
            abort = board.decoder_lost(key, reason, now, strange)
            self._losses.popleft()
            if abort is not None:
                self._fleet.send(self._fleet.engine, abort)
        if self._engine_gone is not None and board is not None:
            if board.engine_lost(self._engine_gone, now, accuse=self._was_solo):
                self._recovery.progress()
                self.solo = False
            self._engine_gone = None

    def _silent_seconds(self, child: Child) -> float:
        now = time.monotonic()
        return now - self._beats.setdefault(child.identity, now)

    def _starting_seconds(self, child: Child) -> float:
        now = time.monotonic()
        return now - self._begun.setdefault(child.identity, now)

    def _is_late(self, child: Child) -> bool:
        """Whether it should have been ready by now; a run over files ends then."""
        late = not child.ready and self._starting_seconds(child) > self._config.run.start_timeout_seconds
        if late and not self._endless:
            raise self._fleet.late()
        return late

    def _delay(self, child: Child) -> float:
        run = self._config.run
        longest = run.backoff_max_seconds
        backoff = self._backoffs.setdefault(
            child.name,
            Backoff(run.backoff_seconds, longest, forget_after_seconds=longest, chance=random.random),
        )
        return backoff.died(time.monotonic())

    def _bury(self, child: Child, reason: str) -> None:
        """Say that it is gone, and when its successor comes."""
        delay = self._delay(child)
        self._due[child.name] = time.monotonic() + delay
        self._beats.pop(child.identity, None)
        self._begun.pop(child.identity, None)
        self.restarts[child.name] += 1
        when = "at once" if delay == 0.0 else f"in {delay:.0f} s"
        what = "restarting the engine" if child.spec.role == "engine" else f"{child.name} is started again {when}"
        self._tell(
            child.spec.role, f"{what}: {reason}" + (f"; {when}" if child.spec.role == "engine" and delay else "")
        )

    def _is_due(self, child: Child) -> bool:
        return time.monotonic() >= self._due.get(child.name, 0.0)

    # --- decoders -----------------------------------------------------------------------------------------------------

    def _watch_decoders(self, board: Board | None, ending: bool) -> None:
        if self._fleet.engine.name in self._due:
            return  # they start with the engine
        for decoder in list(self._fleet.decoders):
            if decoder.name in self._due:
                if not ending and self._is_due(decoder):
                    del self._due[decoder.name]
                    self._fleet.replace_decoder(decoder)
            elif not decoder.is_alive:
                if not (ending and decoder.process.exitcode == 0):  # in order: its last words come
                    self._lose(decoder, decoder.last_words(), self._was_killed(decoder))
            elif decoder.identity in self._assigned and self._silent_seconds(decoder) > self._config.run.stall_seconds:
                silent = self._silent_seconds(decoder)
                reason = f"{decoder.name} made no progress for {silent:.0f} s and was killed (run.stall_seconds)"
                decoder.kill()
                self._lose(decoder, reason, strange=False)
            elif self._is_late(decoder):
                self._lose(decoder, f"{decoder.name} was not ready in time (run.start_timeout_seconds)", strange=False)

    def _was_killed(self, child: Child) -> bool:
        """By SIGKILL, and not by us."""
        return child.process.exitcode == -signal.SIGKILL

    def _lose(self, decoder: Child, reason: str, strange: bool) -> None:
        key = self._assigned.pop(decoder.identity, None)
        self._refuse_hopeless(decoder)
        # What it had sent whole may still have lain in its own socket, and died with it: that is done again, too.
        lost = self.decoded.pop(decoder.identity, set())
        self._losses.extend((each, reason, True) for each in sorted(lost))
        if key is not None:
            self._losses.append((key, reason, strange))
        self._fleet.end(decoder)
        self._bury(decoder, reason)

    def _refuse_hopeless(self, child: Child) -> None:
        """Raises when a child ended by itself before one like it was ever ready: a successor would do the same."""
        code = child.process.exitcode
        if child.name not in self._was_ready and code is not None and code >= 0:
            raise child.failure()

    # --- the consumer -------------------------------------------------------------------------------------------------

    def _watch_consumer(self) -> None:
        consumer = self._fleet.consumer
        if consumer.name in self._due:
            if self._is_due(consumer):
                del self._due[consumer.name]
                self._fleet.replace_consumer()
            return
        if consumer.is_alive:
            stalled = consumer.ready and self._silent_seconds(consumer) > self._config.run.engine_stall_seconds
            if not stalled:
                return
        silent = consumer.is_alive
        self._fleet.end(consumer)
        self._refuse_hopeless(consumer)
        self._consumer_deaths += 1
        named = consumer.process.exitcode in (ExitCode.STORE_LOST, ExitCode.CHILD_START_FAILED)
        if not self._endless and (named or self._consumer_deaths > self._config.run.engine_restarts):
            raise consumer.failure()
        self._bury(consumer, f"the consumer {SILENT}" if silent else consumer.last_words())

    # --- the engine ---------------------------------------------------------------------------------------------------

    def _watch_engine(self, board: Board | None, ending: bool) -> bool:
        engine = self._fleet.engine
        if engine.name in self._due:
            if not ending and self._is_due(engine) and self._engine_gone is None:
                del self._due[engine.name]
                self._recovery.restart(self._fleet)
                self._due = {name: due for name, due in self._due.items() if not name.startswith("decoder")}
            return not ending
        if engine.is_alive:
            self._hurry(engine)
            return True
        return self._engine_died(engine, board, ending)

    def _hurry(self, engine: Child) -> None:
        if engine.ready and self._silent_seconds(engine) > self._config.run.engine_stall_seconds:
            self._silent_engine = True
            engine.kill()
        elif self._is_late(engine):
            engine.kill()
        self._recovery.hurry(self._fleet)

    def _engine_died(self, engine: Child, board: Board | None, ending: bool) -> bool:
        for decoder in self._fleet.decoders:
            decoder.kill()
        self._hear_out()
        self._refuse_hopeless(engine)
        self._recovery.died(engine, bear=self._endless)
        if ending:
            return False
        self._recovery.check(engine, endless=self._endless)
        reason = f"the engine {SILENT}" if self._silent_engine else self._recovery.reason(engine)
        self._silent_engine = False
        self._was_solo, self.solo = self.solo, self._recovery.is_fruitless
        self._assigned.clear()
        self.decoded.clear()
        self._losses.clear()  # all of it is done again
        self._engine_gone = reason
        self._fleet.end(engine, *self._fleet.decoders)
        self._bury(engine, reason)
        self._tell_board(board)
        return True

    def _hear_out(self) -> None:
        """Take what the engine and the decoders had sent us before they ended."""
        patience = Patience(LAST_WORDS_SECONDS)
        while True:
            for received in self._fleet.poll(HEAR_OUT_MS):
                self._take(received)
            if self._recovery.is_heard_out(self._fleet.engine, patience):
                return

    # --- for people ---------------------------------------------------------------------------------------------------

    def states(self) -> list[ProcessState]:
        """Every child, as `status` shows it."""
        return [self._state(child) for child in self._fleet.children]

    def _state(self, child: Child) -> ProcessState:
        if child.name in self._due:
            wait = max(0.0, self._due[child.name] - time.monotonic())
            state = f"waiting: it died, and is started again in {wait:.0f} s"
        elif not child.is_alive:
            state = "ended"
        else:
            state = "ready" if child.ready else "starting"
        restarts = self.restarts[child.name]
        return ProcessState(
            role=child.spec.role, name=child.name, pid=child.process.pid, state=state, restarts=restarts
        )

    # --- the end ------------------------------------------------------------------------------------------------------

    def tell_decoders_to_drain(self) -> None:
        """No further task: each finishes, or gives up, what it has."""
        for decoder in self._fleet.decoders:
            self._fleet.send(decoder, Drain())
