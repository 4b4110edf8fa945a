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
from engine.retirement import Retirement
from engine.status import ProcessState, process_state
from engine.tasks import Board
from transport.messages import Drain, TaskKey
from transport.sockets import Received

HEAR_OUT_MS = 20  # for what lies in our socket when the engine is dead
TURN_SECONDS = 1.0  # of silence between two looks, at most: while a disk held us up, or SIGSTOP, nobody was heard
STALLED = "{} gave no sign of life for {:.0f} s and was killed (run.stall_seconds)"
SILENT = "the {} said nothing for too long and was killed (run.engine_stall_seconds)"
LATE = "{} was not ready in time and was killed (run.start_timeout_seconds)"


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
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """take: gets messages that arrive while an engine's last words are waited for. tell: gets the
        role of a child that is gone and is replaced, and words for people. chance: numbers of [0, 1], for delays.
        """
        self._config = config
        self._fleet = fleet
        self._recovery = recovery
        self._take = take
        self._tell = tell
        self._endless = endless
        self._clock = clock
        self._chance = chance
        self._looked_at = clock()
        self._listened_seconds = 0.0  # the clock of silence: goes on while we listen
        self._assigned: dict[bytes, TaskKey] = {}  # by decoder identity
        self.decoded: dict[bytes, set[TaskKey]] = {}  # by decoder: sent whole, and not durable yet
        self._heard_of: list[TaskKey] = []  # since the last look: sent whole, or durable, perhaps in part
        self._beats: dict[bytes, float] = {}  # by identity, as the next one
        self._killed: dict[bytes, str] = {}  # by us, and why; not collected yet
        self._retirement = Retirement(config.decode.recycle_tasks)
        self._backoffs: dict[str, Backoff] = {}
        self._due: dict[str, float] = {}  # by name: when its successor is started
        self._losses: deque[tuple[TaskKey, str, bool]] = deque()  # the board is still to be told of them
        self._engine_gone: str | None = None  # … and of this
        self._was_ready: set[str] = set()  # roles of which a child was ready once
        self._consumer_deaths = 0  # since the last task that became durable
        self.restarts: Counter[str] = Counter()  # by name
        self._was_solo = False  # when the engine died
        self.solo = False  # one task at a time, to see which one the engine dies of

    # --- what is heard ------------------------------------------------------------------------------------------------

    def heard(self, child: Child) -> None:
        """It is alive, or was until now."""
        if not self._is_buried(child):
            self._beats[child.identity] = self._listened_seconds

    def ready(self, child: Child) -> None:
        """It can take work; a consumer that took another's place gets what that one had not acknowledged."""
        role = child.spec.role
        if role == "consumer" and self.restarts[child.name] and not child.ready:  # the dead one may never have been
            self._fleet.consumer_took_over()
        child.ready = True
        self._was_ready.add(role)

    def assign(self, decoder: Child, key: TaskKey) -> None:
        """It was given this task."""
        self._assigned[decoder.identity] = key
        self._retirement.given(decoder.identity)
        self._beats[decoder.identity] = self._listened_seconds

    def is_idle(self, decoder: Child) -> bool:
        """Whether it can be given a task."""
        name = decoder.identity
        is_free = name not in self._assigned and name not in self._killed and not self._retirement.is_retiring(name)
        return is_free and decoder.ready and decoder.is_alive

    def free(self, identity: bytes) -> None:
        """It has no task any more."""
        self._assigned.pop(identity, None)

    def sent_whole(self, identity: bytes, key: TaskKey) -> None:
        """A decoder has given all of a task to its socket."""
        self.free(identity)
        child = self._fleet.by_identity(identity)
        if child is not None and not self._is_buried(child):  # of one that is, it is lost already
            self.decoded.setdefault(identity, set()).add(key)
            self._heard_of.append(key)

    def durable(self, key: TaskKey) -> None:
        """A task, or a section of it, is done."""
        self._heard_of.append(key)
        self._consumer_deaths = 0
        self.solo = False

    # --- watching -----------------------------------------------------------------------------------------------------

    def watch(self, board: Board | None, ending: bool) -> bool:
        """Replace who died or stalls; False: the engine died in a run that was ending, which therefore ends here.

        Raises:
            SluiceError: a component could not start or go on. LedgerUnavailable: call again.
        """
        self._pass_time()
        if board is not None:
            self._forget_settled(board)
        self._watch_consumer()
        if not self._watch_engine(ending):
            return False
        self._watch_decoders(ending)
        if board is not None:
            self.tell(board)
        return True

    def tell(self, board: Board | None) -> None:
        """Tell the board of what was lost. None: there is none yet. Raises LedgerUnavailable: call again."""
        if board is None:  # then nothing was given out, and nobody has to be told
            self._losses.clear()
            self._engine_gone = None
            return
        now = self._clock()
        self._forget_settled(board)
        while self._losses:
            key, reason, strange = self._losses[0]
            board.decoder_lost(key, reason, now, strange)
            self._losses.popleft()
            # Even of a task that another attempt has settled: the engine would wait for the end of this one for ever.
            self._fleet.abort(key)
        if self._engine_gone is not None:
            if board.engine_lost(self._engine_gone, now, accuse=self._was_solo):
                self._recovery.progress()
                self.solo = False
            self._engine_gone = None

    def _pass_time(self) -> None:
        now = self._clock()
        self._listened_seconds += min(now - self._looked_at, TURN_SECONDS)
        self._looked_at = now

    def _forget_settled(self, board: Board) -> None:
        """Of a task that the board has no more, nothing can be lost. A section that is durable is not its task."""
        for key in self._heard_of:
            if board.path_of(key) is None:
                for keys in self.decoded.values():
                    keys.discard(key)
        self._heard_of.clear()

    def _silent_seconds(self, child: Child) -> float:
        return self._listened_seconds - self._beats.setdefault(child.identity, self._listened_seconds)

    def _hurry(self, child: Child, limit_seconds: float, words: str) -> None:
        """Kill one that has been silent for too long. Of one that starts, a run over files is told: it ends then.

        While it starts, a child may load models for minutes without a word; one that waits for the store says so.
        """
        run = self._config.run
        silent = self._silent_seconds(child)
        if child.ready and silent > limit_seconds:
            self._kill(child, words.format(child.name, silent))
        elif not child.ready and silent > run.start_timeout_seconds:
            if not self._endless:
                raise self._fleet.late()
            self._kill(child, LATE.format(child.name))

    def _kill(self, child: Child, reason: str) -> None:
        """It is replaced when it is gone: one that hangs in the system may take its time, and nobody waits for it."""
        if child.identity not in self._killed:
            self._killed[child.identity] = reason
            child.kill()

    def _is_buried(self, child: Child) -> bool:
        """Whether its death is known; its last messages may come after that."""
        names = {child.name, self._fleet.engine.name} if child.spec.role == "decoder" else {child.name}
        return not names.isdisjoint(self._due)

    def _bury(self, child: Child, reason: str) -> None:
        """Say that it is gone, and when its successor comes."""
        first, longest = self._config.run.backoff_seconds, self._config.run.backoff_max_seconds
        backoff = self._backoffs.setdefault(child.name, Backoff(first, longest, longest, self._chance))
        delay = backoff.died(self._clock())
        self._due[child.name] = self._clock() + delay
        self._forget(child)
        self.restarts[child.name] += 1
        when = f"in {delay:.0f} s" if delay else "at once"
        if child.spec.role == "engine":
            self._tell("engine", f"restarting the engine: {reason}" + (f"; {when}" if delay else ""))
        else:
            self._tell(child.spec.role, f"{child.name} is started again {when}: {reason}")

    def _forget(self, *children: Child) -> None:
        for child in children:
            for known in (self._beats, self._killed, self._assigned, self.decoded):
                known.pop(child.identity, None)
            self._retirement.forget(child.identity)

    def _comes_back(self, child: Child) -> bool:
        """Whether it is time for the successor of one that is dead."""
        is_due = self._clock() >= self._due[child.name]
        if is_due:
            del self._due[child.name]
        return is_due

    # --- decoders -----------------------------------------------------------------------------------------------------

    def _watch_decoders(self, ending: bool) -> None:
        engine = self._fleet.engine
        if engine.name in self._due or not engine.is_alive:
            return  # they end and start with the engine
        for decoder in list(self._fleet.decoders):
            if decoder.name in self._due:
                if not ending and self._comes_back(decoder):
                    self._fleet.replace_decoder(decoder)
            elif decoder.is_alive:
                # An idle one, too: what it has sent may still lie in its socket, and does not leave it while it hangs.
                self._hurry(decoder, self._config.run.stall_seconds, STALLED)
                self._retire(decoder, ending)
            elif self._retirement.is_retiring(decoder.identity) and decoder.process.exitcode == 0:
                self._fleet.end(decoder)  # the engine had let go of all that it had sent: nothing is lost with it
                self._forget(decoder)
                if not ending:
                    self._fleet.replace_decoder(decoder)
            elif not (ending and decoder.process.exitcode == 0):  # in order: its last words come
                self._lose(decoder)

    def _retire(self, decoder: Child, ending: bool) -> None:
        """Have one end in order, when it has done its share and has no task; one at a time."""
        is_due = self._retirement.is_due(decoder.identity) and self.is_idle(decoder) and not ending
        if is_due and self._fleet.send(decoder, Drain()):
            self._retirement.begin(decoder.identity)

    def _lose(self, decoder: Child) -> None:
        self._refuse_hopeless(decoder)
        reason = self._killed.get(decoder.identity)
        strange = reason is None and decoder.process.exitcode == -signal.SIGKILL
        reason = reason or decoder.last_words()
        # What it had sent whole may still have lain in its own socket, and died with it: that is done again, too.
        self._losses.extend((each, reason, True) for each in sorted(self.decoded.get(decoder.identity, ())))
        if decoder.identity in self._assigned:
            self._losses.append((self._assigned[decoder.identity], reason, strange))
        self._fleet.end(decoder)
        self._bury(decoder, reason)

    def _refuse_hopeless(self, child: Child) -> None:
        """Raises when a child ended by itself before one like it was ever ready: a successor would do the same."""
        code = child.process.exitcode
        if child.spec.role not in self._was_ready and code is not None and code >= 0:
            raise child.failure()

    # --- the consumer -------------------------------------------------------------------------------------------------

    def _watch_consumer(self) -> None:
        consumer = self._fleet.consumer
        if consumer.name in self._due:
            if self._comes_back(consumer):
                self._fleet.replace_consumer()
        elif consumer.is_alive:
            self._hurry(consumer, self._config.run.engine_stall_seconds, SILENT)
        else:
            self._consumer_died(consumer)

    def _consumer_died(self, consumer: Child) -> None:
        self._refuse_hopeless(consumer)
        self._consumer_deaths += 1
        named = consumer.process.exitcode in (ExitCode.STORE_LOST, ExitCode.CHILD_START_FAILED)
        if not self._endless and (named or self._consumer_deaths > self._config.run.engine_restarts):
            raise consumer.failure()
        reason = self._killed.get(consumer.identity) or consumer.last_words()
        self._fleet.end(consumer)
        self._bury(consumer, reason)

    # --- the engine ---------------------------------------------------------------------------------------------------

    def _watch_engine(self, ending: bool) -> bool:
        engine = self._fleet.engine
        if engine.name in self._due:
            if not ending and self._engine_gone is None and self._comes_back(engine):
                self._recovery.restart(self._fleet)
                self._due = {name: due for name, due in self._due.items() if not name.startswith("decoder")}
            return not ending
        if engine.is_alive:
            self._hurry(engine, self._config.run.engine_stall_seconds, SILENT)
            self._recovery.hurry(self._fleet)
            return True
        for decoder in self._fleet.decoders:
            decoder.kill()
        if any(decoder.is_alive for decoder in self._fleet.decoders):
            return True  # in a moment
        return self._engine_died(engine, ending)

    def _engine_died(self, engine: Child, ending: bool) -> bool:
        self._hear_out()
        self._refuse_hopeless(engine)
        self._recovery.died(engine, bear=self._endless)
        if ending:
            return False
        self._recovery.check(engine, endless=self._endless)
        reason = self._killed.get(engine.identity) or self._recovery.reason(engine)
        self._was_solo, self.solo = self.solo, self._recovery.is_fruitless
        self._losses.clear()  # all of it is done again
        self._engine_gone = reason
        self._fleet.end(engine, *self._fleet.decoders)
        self._forget(*self._fleet.decoders)
        self._bury(engine, reason)
        return True

    def _hear_out(self) -> None:
        """Take what the engine and the decoders had sent us before they ended."""
        patience = Patience(LAST_WORDS_SECONDS)
        while True:
            for received in self._fleet.poll(HEAR_OUT_MS):
                self._take(received)
            if self._recovery.is_heard_out(self._fleet.engine, patience):
                return

    def states(self) -> list[ProcessState]:
        """Every child, as `status` shows it."""
        waits, restarts = {name: due - self._clock() for name, due in self._due.items()}, self.restarts
        return [process_state(child, waits.get(child.name), restarts[child.name]) for child in self._fleet.children]

    def tell_decoders_to_drain(self) -> None:
        """No further task: each finishes, or gives up, what it has."""
        for decoder in self._fleet.decoders:
            self._fleet.send(decoder, Drain())
