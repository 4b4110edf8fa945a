"""Who watches the children: deaths, silence, late starts, storms; what the board and the engine are told."""

import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from engine.config import Config, RunOptions
from engine.errors import ExitCode, StartError
from engine.guard import Guard
from engine.ledger_schema import LedgerUnavailable
from engine.recovery import Recovery
from engine.taskbook import MemoryBook
from engine.tasks import Board
from engine.videos import VideoJob
from stages.options import DecodeOptions
from tests.test_tasks import FORMAT, media, probed, result
from transport.messages import Abort, AudioResume, ConsumerReplaced, Drain, Message, Probe, TaskKey
from transport.sockets import Received

STRANGE = -signal.SIGKILL
CRASH = -signal.SIGSEGV


class Child:
    """What the guard sees of a process."""

    def __init__(self, role: str, index: int, generation: int) -> None:
        self.spec = SimpleNamespace(role=role, index=index)
        self.identity = f"{role}-{index}.{generation}".encode()
        self.name = f"decoder {index}" if role == "decoder" else role
        self.ready = False
        self.receiving = False
        self.hangs = False  # in the system: SIGKILL has to wait
        self.closed = False
        self.process = SimpleNamespace(exitcode=None, pid=generation)

    @property
    def is_alive(self) -> bool:
        return self.process.exitcode is None

    @property
    def failed_at_start(self) -> bool:
        return bool(self.process.exitcode == ExitCode.CHILD_START_FAILED)

    def die(self, code: int) -> None:
        self.process.exitcode = code

    def kill(self) -> None:
        if self.is_alive and not self.hangs:
            self.die(STRANGE)

    def last_words(self) -> str:
        return f"{self.name} ended with {self.process.exitcode}"

    def failure(self) -> StartError:
        return StartError(f"{self.spec.role}-died", self.last_words())


class Fleet:
    """The children, and what each was told."""

    is_settled = True

    def __init__(self, decoders: int) -> None:
        self.generation = 0
        self.consumer = self.start("consumer")
        self.engine = self.start("engine")
        self.decoders = [self.start("decoder", index) for index in range(decoders)]
        self.sent: list[tuple[str, Message]] = []
        self.coming: list[Received[Any]] = []  # lies in our socket

    def start(self, role: str, index: int = 0) -> Child:
        self.generation += 1
        return Child(role, index, self.generation)

    @property
    def children(self) -> Iterator[Child]:
        yield from (self.consumer, self.engine, *self.decoders)

    def by_identity(self, identity: bytes) -> Child | None:
        return next((child for child in self.children if child.identity == identity), None)

    def end(self, *children: Child) -> None:
        for child in children:
            child.kill()
            assert not child.is_alive, "this would wait"
            child.closed = True

    def replace_decoder(self, dead: Child) -> None:
        assert dead.closed
        self.decoders[self.decoders.index(dead)] = self.start("decoder", dead.spec.index)

    def replace_consumer(self) -> None:
        assert self.consumer.closed
        self.consumer = self.start("consumer")

    def replace_engine(self, suspects: Any, condemned: Any) -> None:
        assert all(child.closed for child in (self.engine, *self.decoders))
        self.engine = self.start("engine")
        self.decoders = [self.start("decoder", decoder.spec.index) for decoder in self.decoders]

    def consumer_took_over(self) -> None:
        self.send(self.engine, ConsumerReplaced())

    def abort(self, key: TaskKey) -> None:
        self.send(self.engine, Abort(key=key))

    def send(self, child: Child, message: Message) -> bool:
        if child.is_alive:
            self.sent.append((child.name, message))
        return child.is_alive

    def poll(self, timeout_ms: int = 0) -> Iterator[Received[Any]]:
        while self.coming:
            yield self.coming.pop(0)

    def late(self) -> StartError:
        return StartError("start-timeout", ", ".join(child.name for child in self.children if not child.ready))


class Book(MemoryBook):
    """A task book that can be away, and counts the deaths it was told of."""

    def __init__(self) -> None:
        super().__init__()
        self.away_after = 1000  # further deaths
        self.deaths: list[int] = []

    def died(self, task_id: int) -> int:
        if self.away_after <= 0:
            raise LedgerUnavailable("ledger-unavailable", "the disk is full")
        self.away_after -= 1
        self.deaths.append(task_id)
        return len(self.deaths)


class Rig:
    """A guard over fake children, with a clock that the test turns."""

    def __init__(
        self, endless: bool = True, decoders: int = 1, recycle_tasks: int | None = None, **options: Any
    ) -> None:
        self.config = Config(run=RunOptions(**options), decode=DecodeOptions(recycle_tasks=recycle_tasks))
        self.fleet = Fleet(decoders)
        self.now = 1000.0
        self.told: list[tuple[str, str]] = []
        self.taken: list[Any] = []
        self.recovery = Recovery(self.config)
        self.book = Book()
        self.board = Board(self.config, FORMAT, book=self.book)
        self.guard = Guard(
            self.config,
            self.fleet,  # type: ignore[arg-type]
            self.recovery,
            self.taken.append,
            lambda role, text: self.told.append((role, text)),
            endless,
            clock=lambda: self.now,
            chance=lambda: 1.0,
        )

    def ready(self, *children: Child) -> None:
        for child in children or self.fleet.children:
            self.guard.ready(child)  # type: ignore[arg-type]

    def film(self, name: bytes = b"a.mp4") -> None:
        """A video of one audio task and three spans, probed."""
        self.board.add(name, name.decode(), self.now)
        probe = self.board.next_message()
        assert isinstance(probe, Probe)
        self.board.probed(probed(probe.key, media(), name.decode()), self.now)

    def give(self, decoder: int = 0) -> TaskKey:
        message: Any = self.board.next_message()
        self.guard.assign(self.fleet.decoders[decoder], message.key)  # type: ignore[arg-type]
        return TaskKey(message.key.task_id, message.key.attempt)

    def watch(self, ending: bool = False) -> bool:
        return self.guard.watch(self.board, ending)

    def turns(self, seconds: float, *heard: Child) -> None:
        """Time passes as in the supervisor's loop; these children are heard meanwhile."""
        for _ in range(round(seconds * 2)):
            self.now += 0.5
            for child in heard:
                self.guard.heard(child)  # type: ignore[arg-type]
            self.watch()

    def said_to(self, name: str) -> list[Message]:
        return [message for to, message in self.fleet.sent if to == name]


def test_an_idle_decoder_that_dies_is_replaced_at_once_and_nobody_is_to_blame() -> None:
    rig = Rig()
    rig.ready()
    dead = rig.fleet.decoders[0]
    dead.die(CRASH)
    rig.watch()
    rig.watch()
    assert rig.fleet.decoders[0] is not dead
    assert rig.told == [("decoder", f"decoder 0 is started again at once: decoder 0 ended with {CRASH}")]
    assert rig.guard.restarts["decoder 0"] == 1
    assert rig.fleet.sent == []


@pytest.mark.parametrize(("code", "counts"), [(CRASH, True), (1, True), (STRANGE, False)])
def test_the_task_of_a_dead_decoder_is_tried_again_and_a_foreign_kill_accuses_it_less(code: int, counts: bool) -> None:
    rig = Rig()
    rig.ready()
    rig.film()
    key = rig.give()
    rig.fleet.decoders[0].die(code)
    rig.watch()
    assert bool(rig.book.deaths) is counts
    assert rig.said_to("engine") == [Abort(key=key)]
    again: Any = rig.board.next_message()
    assert again.key == TaskKey(key.task_id, 1)


def test_what_a_dead_decoder_had_sent_whole_is_done_again_unless_it_is_durable() -> None:
    rig = Rig(decoders=2)
    rig.ready()
    rig.film()
    first, second = rig.give(), rig.give(1)
    rig.guard.sent_whole(rig.fleet.decoders[0].identity, first)
    rig.guard.sent_whole(rig.fleet.decoders[1].identity, second)
    third = rig.give()
    rig.board.durable(result(second), rig.now)
    rig.guard.durable(second)
    for decoder in rig.fleet.decoders:
        decoder.die(CRASH)
    rig.watch()
    assert rig.said_to("engine") == [Abort(key=first), Abort(key=third)]
    assert rig.book.deaths == [third.task_id], "what it had sent whole it did not die of"


def test_a_durable_section_does_not_make_its_task_safe() -> None:
    rig = Rig()
    rig.ready()
    rig.film()
    key = rig.give()  # the sound track
    rig.guard.sent_whole(rig.fleet.decoders[0].identity, key)
    rig.board.durable(result(key, resume=AudioResume(section=1, seconds=10.0, state=b"")), rig.now)
    rig.guard.durable(key)
    rig.watch()
    rig.fleet.decoders[0].die(CRASH)
    rig.watch()
    again: Any = rig.board.next_message()
    assert (again.key, again.resume.section) == (TaskKey(key.task_id, 1), 1)


def test_the_engine_forgets_an_attempt_even_when_another_one_has_settled_its_task() -> None:
    """Else it would wait for the rest of it when it drains."""
    rig = Rig()
    rig.ready()
    rig.film()
    key = rig.give()
    rig.board.durable(result(key), rig.now)  # from the spool, of an earlier run
    rig.fleet.decoders[0].die(CRASH)
    rig.watch()
    assert rig.said_to("engine") == [Abort(key=key)]


def test_a_decoder_without_progress_is_killed_and_its_task_accused() -> None:
    rig = Rig(decoders=2, stall_seconds=20.0)
    rig.ready()
    rig.film()
    key, _ = rig.give(), rig.give(1)
    stalled, well = rig.fleet.decoders
    rig.turns(19.0, well)
    assert stalled.is_alive
    rig.turns(3.0, well)
    assert not stalled.is_alive
    assert rig.fleet.decoders[0] is not stalled
    assert rig.fleet.decoders[1] is well
    assert "gave no sign of life for" in rig.told[0][1]
    assert "run.stall_seconds" in rig.told[0][1]
    assert rig.book.deaths == [key.task_id]


def test_a_decoder_that_hangs_with_nothing_to_do_but_with_what_it_has_sent_is_replaced_and_that_is_done_again() -> None:
    """It is stopped, say, while its last messages lie in its socket: nothing else would ever end this wait."""
    rig = Rig(stall_seconds=20.0)
    rig.ready()
    rig.film()
    key = rig.give()
    (hanging,) = rig.fleet.decoders
    rig.guard.sent_whole(hanging.identity, key)
    rig.turns(25.0, rig.fleet.engine, rig.fleet.consumer)
    assert rig.fleet.decoders[0] is not hanging
    assert rig.said_to("engine") == [Abort(key=key)]
    again: Any = rig.board.next_message()
    assert again.key == TaskKey(key.task_id, 1)
    assert rig.book.deaths == [], "nobody is to blame"


def test_a_decoder_that_has_done_its_share_ends_in_order_and_is_replaced_and_nothing_is_done_again() -> None:
    rig = Rig(decoders=2, recycle_tasks=2)
    rig.ready()
    rig.film()
    old, other = rig.fleet.decoders
    for _ in range(2):
        key = rig.give()
        rig.watch()
        assert Drain() not in rig.said_to("decoder 0"), "not while it has a task"
        rig.guard.sent_whole(old.identity, key)
    rig.watch()
    rig.watch()
    assert rig.said_to("decoder 0") == [Drain()]
    assert not rig.guard.is_idle(old)  # type: ignore[arg-type]
    old.die(0)
    rig.watch()
    assert rig.fleet.decoders[0] is not old
    assert rig.fleet.decoders[1] is other
    assert (rig.told, rig.guard.restarts["decoder 0"], rig.book.deaths) == ([], 0, [])
    assert rig.said_to("engine") == [], "no attempt was given up"


def test_decoders_that_have_done_their_share_end_one_after_the_other() -> None:
    rig = Rig(decoders=2, recycle_tasks=1)
    rig.ready()
    rig.film()
    for index, decoder in enumerate(rig.fleet.decoders):
        rig.guard.sent_whole(decoder.identity, rig.give(index))
    rig.watch()
    assert (rig.said_to("decoder 0"), rig.said_to("decoder 1")) == ([Drain()], [])
    rig.fleet.decoders[0].die(0)
    rig.watch()
    rig.watch()
    assert rig.said_to("decoder 1") == [Drain()]


def test_one_that_dies_instead_of_ending_in_order_is_lost_as_any_other() -> None:
    rig = Rig(recycle_tasks=1)
    rig.ready()
    rig.film()
    key = rig.give()
    rig.guard.sent_whole(rig.fleet.decoders[0].identity, key)
    rig.watch()
    rig.fleet.decoders[0].die(CRASH)
    rig.watch()
    assert rig.said_to("engine") == [Abort(key=key)]
    rig.watch()
    rig.guard.ready(rig.fleet.decoders[0])  # type: ignore[arg-type]
    assert rig.guard.is_idle(rig.fleet.decoders[0])  # type: ignore[arg-type]


def test_nobody_is_killed_for_silence_in_which_we_did_not_listen() -> None:
    rig = Rig(stall_seconds=20.0, engine_stall_seconds=30.0)
    rig.ready()
    rig.film()
    rig.give()
    rig.watch()
    rig.now += 3600.0  # stopped, or held up by a disk
    rig.watch()
    assert rig.told == []
    assert all(child.is_alive for child in rig.fleet.children)


def test_a_decoder_that_hangs_in_the_system_holds_nobody_up_and_gets_no_work() -> None:
    rig = Rig(decoders=2, stall_seconds=20.0)
    rig.ready()
    rig.film()
    key, _ = rig.give(), rig.give(1)
    hanging, well = rig.fleet.decoders
    hanging.hangs = True
    rig.turns(25.0, well)
    assert rig.fleet.decoders[0] is hanging
    rig.guard.free(hanging.identity)
    assert not rig.guard.is_idle(hanging)  # type: ignore[arg-type]
    rig.guard.assign(hanging, key)  # type: ignore[arg-type]
    hanging.die(STRANGE)
    rig.turns(1.0, well)
    assert rig.fleet.decoders[0] is not hanging
    assert rig.book.deaths == [key.task_id], "we killed it, so that is not strange"


@pytest.mark.parametrize("role", ["decoder", "engine", "consumer"])
def test_a_child_that_does_not_get_ready_ends_a_run_over_files_and_is_replaced_by_the_daemon(role: str) -> None:
    for endless in (False, True):
        rig = Rig(endless, start_timeout_seconds=60.0)
        (late,) = [child for child in rig.fleet.children if child.spec.role == role]
        others = [child for child in rig.fleet.children if child is not late]
        rig.ready(*others)
        rig.turns(55.0, *others)
        assert late.is_alive
        if endless:
            rig.turns(10.0, *others)
            assert not late.is_alive
            assert "run.start_timeout_seconds" in rig.told[0][1]
            assert late.identity not in {child.identity for child in rig.fleet.children}
        else:
            with pytest.raises(StartError, match=late.name):
                rig.turns(10.0, *others)


def test_a_consumer_that_starts_and_says_that_it_waits_for_the_store_is_not_late() -> None:
    rig = Rig(endless=False, start_timeout_seconds=60.0)
    rig.ready(rig.fleet.engine, *rig.fleet.decoders)
    rig.turns(500.0, *rig.fleet.children)
    assert rig.fleet.consumer.is_alive


def kill_and_wait(rig: Rig, longest: float = 100.0) -> float:
    """Kill decoder 0; returns after how many seconds another is there."""
    dead = rig.fleet.decoders[0]
    dead.die(CRASH)
    began = rig.now
    while rig.fleet.decoders[0] is dead:
        assert rig.now - began < longest
        rig.watch()
        rig.now += 0.25
    rig.guard.ready(rig.fleet.decoders[0])  # type: ignore[arg-type]
    return rig.now - began


def test_restart_storms_back_off_and_a_long_life_ends_them() -> None:
    rig = Rig(backoff_seconds=1.0, backoff_max_seconds=8.0)
    rig.ready()
    waits = [kill_and_wait(rig) for _ in range(7)]
    assert waits[0] <= 0.5
    assert waits[1:] == pytest.approx([1.0, 2.0, 4.0, 8.0, 8.0, 8.0], abs=0.6)
    (state,) = [state for state in rig.guard.states() if state.role == "decoder"]
    assert (state.state, state.restarts) == ("ready", 7)
    rig.turns(9.0, *rig.fleet.children)
    assert kill_and_wait(rig) <= 0.5


def test_one_that_waits_for_its_start_is_shown_as_such() -> None:
    rig = Rig(backoff_seconds=30.0)
    rig.ready()
    kill_and_wait(rig)
    rig.fleet.decoders[0].die(CRASH)
    rig.watch()
    (state,) = [state for state in rig.guard.states() if state.role == "decoder"]
    assert state.state == "waiting: it died, and is started again in 30 s"
    assert not rig.guard.is_idle(rig.fleet.decoders[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("role", ["decoder", "engine", "consumer"])
def test_a_child_that_ends_by_itself_before_one_like_it_was_ready_ends_the_daemon_too(role: str) -> None:
    rig = Rig()
    child = next(child for child in rig.fleet.children if child.spec.role == role)
    child.die(1)
    with pytest.raises(StartError, match=f"{child.name} ended with 1"):
        rig.watch()


@pytest.mark.parametrize("role", ["decoder", "engine", "consumer"])
def test_a_child_that_is_killed_while_it_starts_is_replaced(role: str) -> None:
    rig = Rig()
    child = next(child for child in rig.fleet.children if child.spec.role == role)
    child.die(STRANGE)
    rig.turns(1.0)
    assert rig.fleet.by_identity(child.identity) is None


def test_a_decoder_that_cannot_start_where_others_could_is_replaced() -> None:
    rig = Rig(decoders=2)
    rig.ready(rig.fleet.consumer, rig.fleet.engine, rig.fleet.decoders[0])
    rig.fleet.decoders[1].die(1)
    rig.turns(1.0)
    assert rig.fleet.decoders[1].is_alive


# --- the consumer -----------------------------------------------------------------------------------------------------


def test_the_engine_sends_again_what_a_dead_consumer_did_not_acknowledge_when_the_successor_is_ready() -> None:
    rig = Rig()
    rig.ready()
    assert rig.said_to("engine") == [], "the first consumer is nobody's successor"
    rig.fleet.consumer.die(STRANGE)
    rig.turns(1.0)
    assert rig.said_to("engine") == []
    rig.ready(rig.fleet.consumer)
    rig.ready(rig.fleet.consumer)  # says it twice, when it was told twice what it needs
    assert rig.said_to("engine") == [ConsumerReplaced()]
    assert rig.told[0][0] == "consumer"


def test_so_it_does_when_the_dead_consumer_never_was_ready() -> None:
    """It may have been replaying its spool, with the engine connected to it already."""
    rig = Rig()
    rig.ready(rig.fleet.engine, *rig.fleet.decoders)
    rig.fleet.consumer.die(STRANGE)
    rig.turns(1.0)
    rig.ready(rig.fleet.consumer)
    assert rig.said_to("engine") == [ConsumerReplaced()]


def test_a_run_over_files_gives_up_on_a_consumer_that_dies_again_and_again_with_nothing_done() -> None:
    rig = Rig(endless=False, engine_restarts=2)

    def die() -> None:
        rig.ready()
        rig.fleet.consumer.die(STRANGE)
        rig.turns(20.0, rig.fleet.engine, *rig.fleet.decoders)

    for _ in range(2):
        die()
    rig.guard.durable(TaskKey(1, 0))
    for _ in range(2):
        die()
    with pytest.raises(StartError, match="consumer ended"):
        die()


def test_a_run_over_files_gives_up_on_a_lost_store_and_the_daemon_does_not() -> None:
    for endless in (True, False):
        rig = Rig(endless)
        rig.ready()
        rig.fleet.consumer.die(ExitCode.STORE_LOST)
        if endless:
            rig.turns(1.0)
            assert rig.fleet.consumer.is_alive
        else:
            with pytest.raises(StartError):
                rig.turns(1.0)


def test_the_daemon_goes_on_however_often_its_consumer_dies() -> None:
    rig = Rig(engine_restarts=1, backoff_max_seconds=4.0)
    for _ in range(10):
        rig.ready()
        rig.fleet.consumer.die(ExitCode.CHILD_START_FAILED)
        rig.turns(5.0, rig.fleet.engine, *rig.fleet.decoders)
        assert rig.fleet.consumer.is_alive


@pytest.mark.parametrize("role", ["engine", "consumer"])
def test_an_engine_or_consumer_that_says_nothing_is_killed_and_replaced(role: str) -> None:
    rig = Rig(engine_stall_seconds=30.0)
    rig.ready()
    silent: Child = getattr(rig.fleet, role)
    other = rig.fleet.consumer if role == "engine" else rig.fleet.engine
    rig.turns(29.0, other, *rig.fleet.decoders)
    assert silent.is_alive
    rig.turns(3.0, other, *rig.fleet.decoders)
    assert not silent.is_alive
    assert getattr(rig.fleet, role).is_alive
    ((_, words),) = rig.told
    assert f"the {role} said nothing for too long and was killed (run.engine_stall_seconds)" in words


def test_a_hanging_consumer_that_was_killed_is_replaced_only_when_it_is_gone() -> None:
    rig = Rig(engine_stall_seconds=30.0)
    rig.ready()
    hanging = rig.fleet.consumer
    hanging.hangs = True
    rig.turns(60.0, rig.fleet.engine, *rig.fleet.decoders)
    assert rig.fleet.consumer is hanging, "it holds the store's lock, and the endpoint"
    hanging.die(STRANGE)
    rig.turns(1.0, rig.fleet.engine)
    assert rig.fleet.consumer is not hanging


# --- the engine -------------------------------------------------------------------------------------------------------


def lose_engine(rig: Rig, code: int = CRASH) -> None:
    rig.fleet.engine.die(code)
    old = rig.fleet.engine
    while rig.fleet.engine is old:
        assert rig.watch()
        rig.now += 1.0
    rig.ready(rig.fleet.engine, *rig.fleet.decoders)


def test_the_engines_death_ends_the_decoders_and_all_that_was_under_way_is_done_again() -> None:
    rig = Rig(decoders=2)
    rig.ready()
    rig.film()
    first, second = rig.give(), rig.give(1)
    old = rig.fleet.decoders
    rig.guard.sent_whole(old[0].identity, first)
    lose_engine(rig)
    assert not any(decoder.is_alive for decoder in old)
    assert rig.guard.is_idle(rig.fleet.decoders[0])  # type: ignore[arg-type]
    queued = [message.key for message in iter(rig.board.next_message, None)]  # type: ignore[attr-defined]
    assert queued[:2] == [TaskKey(first.task_id, 1), TaskKey(second.task_id, 1)]
    assert rig.book.deaths == []
    assert rig.told == [("engine", f"restarting the engine: engine ended with {CRASH}")]


def test_what_the_dead_had_said_is_heard_first() -> None:
    rig = Rig()
    rig.ready()
    rig.fleet.coming.append(Received(b"decoder-0.3", Drain(), None, 0))
    lose_engine(rig)
    assert [received.sender for received in rig.taken] == [b"decoder-0.3"]


def test_after_two_deaths_without_a_word_and_without_progress_tasks_are_given_out_one_at_a_time() -> None:
    rig = Rig(attempts=2)
    rig.ready()
    rig.film()
    keys = [rig.give()]
    lose_engine(rig)
    assert not rig.guard.solo
    keys.append(rig.give())
    lose_engine(rig)
    assert rig.guard.solo
    for _ in range(2):  # alone in two more
        keys.append(rig.give())
        lose_engine(rig)
    assert len({key.task_id for key in keys}) == 1
    assert rig.board.path_of(keys[0]) is None, "it is given up"
    assert not rig.guard.solo
    (job,) = rig.board.jobs.values()
    assert "engine-died" in job.gaps[0].reason


def test_progress_ends_the_search_for_a_guilty_task() -> None:
    rig = Rig()
    rig.ready()
    for _ in range(2):
        lose_engine(rig)
    assert rig.guard.solo
    rig.guard.durable(TaskKey(1, 0))
    assert not rig.guard.solo


def test_an_engine_that_keeps_dying_backs_off_and_ends_a_run_over_files() -> None:
    rig = Rig(endless=False, engine_restarts=2, backoff_seconds=10.0)
    rig.ready()
    lose_engine(rig)
    began = rig.now
    lose_engine(rig)
    assert rig.now - began == pytest.approx(10.0, abs=2.0)
    with pytest.raises(StartError, match=r"run\.engine_restarts"):
        lose_engine(rig)
    rig = Rig(engine_restarts=2)
    rig.ready()
    for _ in range(6):
        lose_engine(rig)


def test_an_engine_that_dies_while_the_run_ends_is_not_replaced() -> None:
    rig = Rig()
    rig.ready()
    rig.fleet.engine.die(CRASH)
    assert not rig.watch(ending=True)
    rig = Rig()
    rig.ready()
    rig.fleet.engine.die(CRASH)
    assert rig.watch()
    assert not rig.watch(ending=True), "nor when it had died before"
    assert not rig.fleet.engine.is_alive


def test_a_decoder_that_hangs_in_the_system_holds_up_the_next_engine_but_not_us() -> None:
    rig = Rig(decoders=2)
    rig.ready()
    rig.fleet.decoders[1].hangs = True
    rig.fleet.engine.die(CRASH)
    rig.turns(5.0, rig.fleet.consumer)
    assert rig.told == []
    rig.fleet.decoders[1].die(STRANGE)
    rig.turns(1.0, rig.fleet.consumer)
    assert rig.fleet.engine.is_alive
    assert [role for role, _ in rig.told] == ["engine"]


def test_an_engine_may_die_while_the_consumer_is_away_and_the_other_way_round() -> None:
    rig = Rig(backoff_seconds=5.0)
    rig.ready()
    for first, second in (("consumer", "engine"), ("engine", "consumer")) * 2:
        getattr(rig.fleet, first).die(STRANGE)
        rig.watch()
        getattr(rig.fleet, second).die(STRANGE)
        rig.turns(60.0)
        assert all(child.is_alive for child in rig.fleet.children)
        rig.ready()


def test_an_engine_that_is_killed_before_there_is_a_board_is_replaced() -> None:
    """As the supervisor calls it: who died is looked at without the board, which may need the ledger."""
    rig = Rig()
    dead = rig.fleet.engine
    dead.die(STRANGE)
    for _ in range(3):
        assert rig.guard.watch(None, ending=False)
        rig.guard.tell(None)
        rig.now += 1.0
    assert rig.fleet.engine is not dead
    assert rig.fleet.engine.is_alive


# --- while the ledger is away -----------------------------------------------------------------------------------------


def test_losses_are_told_once_each_however_often_the_ledger_goes_away_in_between() -> None:
    rig = Rig(decoders=3)
    rig.ready()
    rig.film()
    keys = [rig.give(number) for number in range(3)]
    for decoder in rig.fleet.decoders:
        decoder.die(CRASH)
    for expected in (1, 2, 3):
        rig.book.away_after = 1
        if expected < 3:
            with pytest.raises(LedgerUnavailable):
                rig.watch()
        else:
            rig.watch()
        assert len(rig.book.deaths) == expected
    assert rig.book.deaths == [key.task_id for key in keys]
    assert rig.said_to("engine") == [Abort(key=key) for key in keys]
    rig.book.away_after = 1000
    rig.turns(5.0, *rig.fleet.children)
    assert rig.book.deaths == [key.task_id for key in keys]
    assert all(decoder.is_alive for decoder in rig.fleet.decoders)


def test_an_engine_is_not_started_before_the_board_knows_of_the_last_ones_death(monkeypatch: Any) -> None:
    rig = Rig()
    rig.ready()
    rig.film()
    key = rig.give()
    away = True

    def engine_lost(*arguments: Any, **more: Any) -> bool:
        if away:
            raise LedgerUnavailable("ledger-unavailable", "locked")
        return Board.engine_lost(rig.board, *arguments, **more)

    monkeypatch.setattr(rig.board, "engine_lost", engine_lost)
    dead = rig.fleet.engine
    dead.die(CRASH)
    for _ in range(3):
        with pytest.raises(LedgerUnavailable):
            rig.watch()
        assert rig.fleet.engine is dead
    away = False
    rig.watch()
    rig.watch()
    assert rig.fleet.engine.is_alive
    again: Any = rig.board.next_message()
    assert again.key == TaskKey(key.task_id, 1)
    assert len(rig.told) == 1


def test_children_are_watched_while_there_is_no_board() -> None:
    rig = Rig()
    rig.ready()
    rig.fleet.decoders[0].die(CRASH)
    assert rig.guard.watch(None, False)
    assert rig.guard.watch(None, False)
    assert rig.fleet.decoders[0].is_alive


# --- what is remembered -----------------------------------------------------------------------------------------------


def remembered(guard: Guard) -> int:
    """Entries of everything that is kept by identity or task."""
    kept: list[Any] = [guard._assigned, guard._beats, guard._killed, guard._heard_of, guard._losses, guard._due]
    return sum(map(len, kept)) + sum(len(keys) + 1 for keys in guard.decoded.values())


@pytest.mark.parametrize("who", ["decoder", "engine", "consumer"])
def test_nothing_is_kept_of_the_dead_even_when_their_messages_come_late(who: str) -> None:
    rig = Rig(decoders=2, backoff_max_seconds=2.0)
    rig.ready()
    counts: list[int] = []
    for number in range(30):
        rig.film(b"%d.mp4" % number)
        key = rig.give()
        rig.guard.sent_whole(rig.fleet.decoders[0].identity, key)
        dead = rig.fleet.decoders[0] if who == "decoder" else getattr(rig.fleet, who)
        sender = rig.fleet.decoders[0]
        dead.die(CRASH)
        rig.watch()
        for late in (dead, sender):
            rig.guard.heard(late)  # type: ignore[arg-type]
            rig.guard.sent_whole(sender.identity, key)
        rig.turns(4.0)
        rig.guard.sent_whole(sender.identity, key)  # its successor is there already
        rig.ready()
        settle(rig)
        rig.watch()
        counts.append(remembered(rig.guard))
    assert counts[-1] <= max(counts[:3])


def settle(rig: Rig) -> None:
    """Everything that is open becomes durable."""
    while (message := rig.board.next_message()) is not None:
        assert message is not None
    for job in list(rig.board.jobs.values()):
        settle_job(rig, job)


def settle_job(rig: Rig, job: VideoJob) -> None:
    for task in list(job.open_tasks.values()):
        rig.board.durable(result(task.key), rig.now)
        rig.guard.durable(task.key)


def test_a_task_that_is_durable_before_its_decoder_says_that_it_was_sent_leaves_nothing_behind() -> None:
    rig = Rig()
    rig.ready()
    rig.film()
    key = rig.give()
    rig.board.durable(result(key), rig.now)
    rig.guard.durable(key)
    rig.watch()
    rig.guard.sent_whole(rig.fleet.decoders[0].identity, key)
    rig.watch()
    assert rig.guard.decoded == {rig.fleet.decoders[0].identity: set()}


def test_decoders_are_told_to_drain_and_end_in_order() -> None:
    rig = Rig(decoders=2)
    rig.ready()
    rig.guard.tell_decoders_to_drain()
    assert [(to, type(message)) for to, message in rig.fleet.sent] == [("decoder 0", Drain), ("decoder 1", Drain)]
    for decoder in rig.fleet.decoders:
        decoder.die(0)
    assert rig.watch(ending=True)
    assert rig.told == []
    assert not any(decoder.is_alive for decoder in rig.fleet.decoders)


def test_a_decoder_that_crashes_while_the_run_ends_is_mourned_and_not_replaced() -> None:
    rig = Rig()
    rig.ready()
    rig.film()
    key = rig.give()
    rig.fleet.decoders[0].die(CRASH)
    for _ in range(5):
        rig.watch(ending=True)
        rig.now += 10.0
    assert not rig.fleet.decoders[0].is_alive
    assert rig.said_to("engine") == [Abort(key=key)]
