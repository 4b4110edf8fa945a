"""The consumer without sockets: nothing is lost or doubled, whatever is away, full or killed, and order is kept."""

import itertools
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.writer import DRAIN_PATIENCE_SECONDS, VACUUM_SECONDS
from engine.writer_items import Announced
from stages.errors import StoreError, StoreUnavailable
from tests.writer_rig import Rig, points_message, record_bytes
from transport.messages import Label, OperationDone, RecordVideo, Remove, Repath, TaskDurable, TaskKey

KEY, OTHER = TaskKey(1, 0), TaskKey(2, 0)


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Makes rigs, and closes their files after the test."""
    made: list[Rig] = []

    def make(*arguments: Any, **more: Any) -> Rig:
        made.append(Rig(tmp_path, *arguments, **more))
        return made[-1]

    yield make
    for rig in made:
        rig.kill()


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


def durable(rig: Rig) -> list[tuple[TaskKey, int]]:
    return [(each.result.key, each.result.section) for each in rig.heard if isinstance(each, TaskDurable)]


# --- store, ledger, credit ------------------------------------------------------------------------------------------


def test_credit_of_a_result_returns_only_when_it_is_in_the_ledger(rig: Rig) -> None:
    rig.commits = False
    rig.points("v", 1, 2)
    rig.result(KEY)
    rig.points("v", 3, key=OTHER)
    rig.turns(3)
    assert set(rig.frames) == {"v/1", "v/2", "v/3"}
    assert durable(rig) == [(KEY, 0)]
    assert len(rig.released) == 1, "the points before it; those behind it wait their turn"
    assert not rig.writer.may_end()
    rig.commits = True
    rig.turns(2)
    assert rig.kept == []
    rig.finish()


def test_all_points_before_a_result_are_durable_when_it_is_said(rig: Rig) -> None:
    """A batch is four points: the result comes after the third of them."""
    seen: list[int] = []
    rig.writer._say = lambda message: seen.append(len(rig.frames)) if isinstance(message, TaskDurable) else None
    for number in range(10):
        rig.points("v", number)
    rig.result(KEY)
    rig.turns(5)
    assert seen == [10]
    assert max(rig.store.upserts) == 4


def test_a_commit_of_an_unknown_key_is_harmless(rig: Rig) -> None:
    rig.writer.committed(OTHER, 3)
    rig.result(KEY)
    rig.finish()
    assert rig.ledger == [(KEY, 0)]


def test_a_result_that_comes_again_is_said_again_and_one_answer_settles_both(rig: Rig) -> None:
    rig.commits = False
    for _ in range(2):
        rig.points("v", 1)
        rig.result(KEY)
    rig.turns(3)
    assert durable(rig) == [(KEY, 0), (KEY, 0)]
    rig.writer.committed(KEY, 0)
    rig.turns(2)
    assert rig.kept == []
    assert len(rig.frames) == 1


def test_sections_are_committed_one_by_one(rig: Rig) -> None:
    rig.commits = False
    for section in range(2):
        rig.points("v", section)
        rig.result(KEY, section)
    rig.turns(3)
    rig.writer.committed(KEY, 1)
    rig.turns(2)
    assert len(rig.released) == 1
    rig.writer.committed(KEY, 0)
    rig.turns(2)
    assert rig.kept == []


def test_an_attempt_is_called_searchable_once(rig: Rig) -> None:
    rig.points("v", 1)
    rig.turn()
    rig.points("v", 2)
    rig.points("w", 1, key=OTHER)
    rig.points("w", key=TaskKey(3, 0))
    rig.result(KEY)
    rig.turns(3)
    assert rig.searchable == [KEY, OTHER], "not one without points"
    assert not rig.writer._announced.add(OTHER)
    assert rig.writer._announced.add(KEY), "what has ended is forgotten"


def test_what_is_remembered_of_attempts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.writer_items.ANNOUNCED_KEYS", 3)
    announced = Announced()
    assert all(announced.add(TaskKey(number, 0)) for number in range(10))
    assert [announced.add(TaskKey(number, 0)) for number in (7, 8, 9, 6)] == [False, False, False, True]


# --- while the store is away ----------------------------------------------------------------------------------------


def test_what_comes_while_the_store_is_away_goes_to_the_disk_and_its_credit_back(rig: Rig) -> None:
    rig.turn()
    rig.store.go_away()
    for number in range(20):
        rig.points("v", number)
        rig.result(TaskKey(number, 0))
        rig.turn(0.5)
    rig.turns(3)
    assert rig.kept == []
    assert rig.spool.size_bytes > 0
    assert durable(rig) == []
    assert rig.writer.state() == "waiting: 503 from the store"
    rig.store.failure = None
    rig.turns(40)
    assert len(rig.frames) == 20
    assert rig.ledger == [(TaskKey(number, 0), 0) for number in range(20)]
    assert rig.spool.is_empty
    assert rig.writer.state() == "writing"
    rig.finish()


def test_a_single_failure_does_not_trouble_the_disk(rig: Rig) -> None:
    rig.turn()
    rig.store.go_away()
    rig.points("v", 1)
    rig.turn(0.5)
    rig.store.failure = None
    rig.finish()
    assert set(rig.frames) == {"v/1"}
    assert rig.access.retries == 1
    assert not rig.spool.directory.exists()


def test_what_comes_during_the_replay_comes_after_it(rig: Rig) -> None:
    rig.turn()
    rig.store.go_away()
    for number in range(60):
        rig.points("v", number)
    rig.turns(4)
    rig.store.failure = None
    rig.now += 20
    rig.points("v", 0, key=OTHER)  # written later: it must win
    rig.kept[-1][0].payloads[0]["number"] = 99  # type: ignore[attr-defined]
    rig.turn()
    assert "v/59" not in rig.frames, "the replay takes more than a step"
    assert rig.writer.state() == "writing from the spool"
    rig.finish()
    assert rig.frames["v/0"]["number"] == 99
    assert len(rig.frames) == 60


def test_the_store_is_asked_again_with_growing_delays(rig: Rig) -> None:
    rig.turn()
    rig.store.go_away()
    rig.points("v", 1)
    asked: list[float] = []
    for _ in range(2000):
        before = rig.store.calls
        rig.turn(0.05)
        if rig.store.calls > before:
            asked.append(rig.now)
    gaps = [round(later - earlier, 1) for earlier, later in itertools.pairwise(asked)]
    assert gaps == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, *[10.0] * (len(gaps) - 6)], abs=0.11)
    assert rig.access.retries == len(asked)


def test_the_wait_is_short_and_not_at_all_while_there_is_something_to_do(rig: Rig) -> None:
    rig.turn()
    assert rig.writer.wait_seconds() == 0.1
    rig.points("v", 1)
    assert rig.writer.wait_seconds() == 0.0
    rig.store.go_away()
    rig.turn(0.0)
    assert 0 < rig.writer.wait_seconds() <= 0.1
    rig.store.failure = None
    rig.finish()


@pytest.mark.parametrize("spool_bytes", [0, 900])
def test_a_full_spool_means_missing_credit_and_nothing_else(make_rig: Callable[..., Rig], spool_bytes: int) -> None:
    rig = make_rig(spool_bytes=spool_bytes)
    rig.turn()
    rig.store.go_away()
    for number in range(20):
        rig.points("v", number)
    rig.turns(5)
    one = record_bytes(*points_message("v", [10], KEY))
    assert len(rig.released) <= spool_bytes / one
    assert rig.spool.size_bytes <= spool_bytes
    assert ("the spool is full (store.spool_mb)" in rig.writer.state()) == (spool_bytes > 0)
    rig.store.failure = None
    rig.finish()
    assert len(rig.frames) == 20
    assert rig.kept == []


def test_a_disk_that_is_full_is_said_and_the_spool_tried_again(rig: Rig) -> None:
    rig.turn()
    rig.store.go_away()
    rig.disk_is_full = True
    for number in range(5):
        rig.points("v", number)
    rig.turns(4)
    assert rig.released == []
    assert "waiting: 503 from the store; the spool cannot be written: No space left on device" in rig.writer.state()
    rig.disk_is_full = False
    rig.turns(30)
    assert len(rig.released) == 5
    assert rig.writer.state() == "waiting: 503 from the store"
    rig.store.failure = None
    rig.finish()
    assert len(rig.frames) == 5


def test_a_store_that_stays_away_is_given_up_in_one_line_and_the_spool_is_kept(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(patience_seconds=60)
    rig.turn()
    rig.store.go_away()
    rig.points("v", 1)
    message = r"^the store has been away for \d\d s \(503 from the store\).*store\.retry_seconds$"
    with pytest.raises(StoreError, match=message) as caught:
        rig.turns(2000, 0.05)
    assert caught.value.code == "store-lost"
    assert 160 <= rig.now < 180
    rig.kill()
    assert rig.kept == []
    rig.store.failure = None
    rig.start()
    rig.finish()
    assert set(rig.frames) == {"v/1"}


def test_patience_without_end_never_ends(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(patience_seconds=math.inf)
    rig.turn()
    rig.store.go_away()
    rig.points("v", 1)
    rig.turns(2000, 100.0)
    rig.store.failure = None
    rig.finish()
    assert set(rig.frames) == {"v/1"}


def test_a_refusal_ends_it_at_once(rig: Rig) -> None:
    rig.turn()
    rig.store.failure = StoreError("store-not-authorised", "no key")
    rig.points("v", 1)
    with pytest.raises(StoreError, match=r"^no key$"):
        rig.turn()
    assert rig.access.retries == 0


def test_a_refusal_of_spooled_points_says_where_they_are(rig: Rig) -> None:
    rig.turn()
    rig.store.go_away()
    rig.points("v", 1)
    rig.turns(4)
    rig.store.failure = StoreError("vector-size", "wrong size")
    message = rf"^wrong size; the points lie in the spool {rig.spool.directory}: to go on without them, move it away$"
    with pytest.raises(StoreError, match=message) as caught:
        rig.turns(40)
    assert caught.value.code == "vector-size"


def test_a_ledger_that_cannot_be_written_bounds_what_is_replayed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.writer.UNCOMMITTED_RESULTS", 5)
    rig.turn()
    rig.store.go_away()
    rig.points("v", 1)
    for number in range(100):
        rig.result(TaskKey(number, 0))
    rig.turns(4)
    assert rig.kept == []
    rig.commits, rig.store.failure = False, None
    rig.turns(40)
    assert 5 <= len(durable(rig)) <= 5 + rig.batch_points
    assert rig.writer.wait_seconds() > 0
    rig.commits = True
    rig.finish()
    assert len(rig.ledger) == 100


# --- many writes, one flush -----------------------------------------------------------------------------------------


def test_many_writes_share_a_flush(rig: Rig) -> None:
    rig.turn()
    for number in range(40):
        rig.points("v", number)
    for _ in range(9):
        rig.turn(0.0)
    assert rig.released == [], "more is to be written: nothing is durable yet"
    assert rig.store.flushes == 0
    rig.turn(0.0)
    assert (len(rig.released), rig.store.flushes) == (40, 1)
    assert len(rig.store.upserts) == 10


@pytest.mark.parametrize(("every_seconds", "least", "most"), [(0.05, 2, 3), (0.15, 20, 32)])
def test_what_trickles_in_is_flushed_only_so_often(rig: Rig, every_seconds: float, least: int, most: int) -> None:
    """A steady stream once a second; where there are pauses, in them."""
    rig.turn()
    for number in range(40):
        rig.points("v", number)
        for _ in range(3):
            rig.turn(every_seconds / 3)
    assert least <= rig.store.flushes <= most
    rig.finish()
    assert rig.kept == []


def test_half_of_the_credit_is_flushed_without_waiting(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(commit_bytes=1)
    rig.turn()
    for number in range(12):
        rig.points("v", number)
        rig.turn(0.0)
        assert rig.kept == [], "the engine may have no credit left to send more"


def test_an_operation_has_what_came_before_it_flushed_at_once(rig: Rig) -> None:
    rig.points("v", 1)
    rig.turn(0.0)
    rig.points("v", 2)
    rig.operate(Repath(request=1, video_id="v", shown_path="new"))
    for _ in range(4):
        rig.turn(0.0)
    assert rig.operations == {}
    assert {facts["path"] for facts in rig.frames.values()} == {"new"}


def test_a_flush_that_fails_has_everything_written_again(rig: Rig) -> None:
    rig.turn()
    rig.store.flush_failure = StoreUnavailable("store-full", "no room")
    for number in range(10):
        rig.points("v", number)
    rig.turns(3, 0.05)
    assert rig.released == []
    assert rig.writer.state() == "waiting: no room"
    rig.store.flush_failure = None
    rig.store.collections["frames"].clear()  # what was not flushed may be lost
    rig.finish()
    assert len(rig.frames) == 10
    assert rig.kept == []
    assert rig.writer.points == 10, "each is counted once"


# --- the start ------------------------------------------------------------------------------------------------------


def test_nothing_is_written_before_it_is_known_what_must_be_there(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.start(is_prepared=False)
    rig.points("v", 1)
    rig.turns(3)
    assert rig.store.calls == 0
    assert not rig.writer.is_ready
    assert rig.writer.wait_seconds() == 0.1
    assert rig.writer.may_end(), "a drain before that ends at once"


@pytest.mark.parametrize(("patience_seconds", "is_ready"), [(60.0, False), (math.inf, True)])
def test_a_store_that_is_away_at_the_start_holds_up_only_who_would_give_up(
    make_rig: Callable[..., Rig], patience_seconds: float, is_ready: bool
) -> None:
    rig = make_rig(patience_seconds=patience_seconds)
    rig.store.go_away()
    assert not rig.writer.is_ready, "it is asked once, for what it refuses for good"
    rig.turns(5)
    assert rig.writer.is_ready == is_ready
    assert rig.writer.state().startswith("waiting: ")
    rig.points("v", 1)
    rig.turns(3)
    assert len(rig.released) == 1, "it is on the disk"
    rig.store.failure = None
    rig.turns(40)
    assert rig.writer.is_ready
    rig.finish()
    assert set(rig.frames) == {"v/1"}


def test_a_store_that_never_comes_is_named_as_it_was_met(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(patience_seconds=5)
    rig.store.go_away()
    with pytest.raises(StoreUnavailable, match=r"^503 from the store$"):
        rig.turns(1000, 0.05)


def test_a_store_that_refuses_at_the_start_is_not_waited_for(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(patience_seconds=math.inf)
    rig.store.failure = StoreError("vector-size", "other models")
    with pytest.raises(StoreError, match="other models"):
        rig.turn()


# --- operations -----------------------------------------------------------------------------------------------------


def test_operations_keep_their_place_among_the_points(rig: Rig) -> None:
    rig.points("v", 1)
    rig.operate(Remove(request=1, video_id="v"))
    rig.points("v", 2)
    rig.operate(Repath(request=2, video_id="v", shown_path="new"))
    rig.points("v", 3)
    rig.finish()
    assert {name: facts["path"] for name, facts in rig.frames.items()} == {"v/2": "new", "v/3": "old"}
    assert rig.operations == {}


def test_operations_keep_their_place_among_what_is_spooled(rig: Rig) -> None:
    rig.turn()
    rig.store.go_away()
    rig.points("v", 1)
    rig.turns(4)
    rig.points("v", 2)  # in memory when the operation comes
    rig.operate(Remove(request=1, video_id="v"))
    rig.points("v", 3)
    rig.turns(2)
    rig.points("v", 4)
    rig.turns(2)
    assert rig.kept == [], "all of it is on the disk"
    assert list(rig.operations) == [1]
    rig.store.failure = None
    rig.finish()
    assert set(rig.frames) == {"v/3", "v/4"}
    assert rig.operations == {}


def test_an_operation_waits_until_nothing_before_it_can_be_written_again(rig: Rig) -> None:
    """A successor would write the spooled points of the video again, and bring them back."""
    rig.turn()
    rig.store.go_away()
    rig.points("v", 1)
    rig.result(KEY)
    rig.turns(4)
    rig.operate(Remove(request=1, video_id="v"))
    rig.commits = False
    rig.store.failure = None
    rig.turns(40)
    assert set(rig.frames) == {"v/1"}
    assert list(rig.operations) == [1], "its result is not in the ledger, so its segment is still there"
    rig.commits = True
    rig.finish()
    assert rig.frames == {}


def test_a_label_waits_until_nothing_before_it_can_be_written_again(rig: Rig) -> None:
    """Written again, the points would lose it; and what comes behind it is written behind it."""
    rig.points("v", 1)
    rig.result(KEY)
    rig.commits = False
    rig.turns(3)
    rig.operate(Label(request=1, video_id="v", model="m"))
    rig.points("v", 2)
    rig.turns(3)
    assert {name: facts["path"] for name, facts in rig.frames.items()} == {"v/1": "old"}
    rig.commits = True
    rig.finish()
    assert {name: facts["path"] for name, facts in rig.frames.items()} == {"v/1": "labelled", "v/2": "old"}


def test_who_labels_hears_of_points_that_were_removed(rig: Rig) -> None:
    rig.points("v", 1)
    rig.operate(Remove(request=1, video_id="v"))
    rig.finish()
    assert rig.forgotten == ["v"]


def test_an_operation_that_the_store_refuses_is_answered(rig: Rig) -> None:
    rig.turn()
    rig.operate(Remove(request=7, video_id="v"))
    rig.store.failure = StoreError("store-refused", "no")
    rig.turn()
    assert rig.heard == [OperationDone(request=7, error="store-refused: no")]
    rig.store.failure = None
    rig.finish()


def test_an_operation_on_a_store_that_is_away_waits(rig: Rig) -> None:
    rig.turn()
    rig.store.go_away()
    rig.operate(RecordVideo(request=1, video_id="v", fingerprint="f", shown_path="p", report="{}"))
    rig.turns(20)
    assert rig.heard == []
    rig.store.failure = None
    rig.turns(30)
    assert rig.heard == [OperationDone(request=1)]
    (record,) = rig.store.collections["videos"].values()
    assert record == {"video_id": "v", "fingerprint": "f", "path": "p", "report": "{}"}
    rig.finish()


# --- the end --------------------------------------------------------------------------------------------------------


def test_a_drain_waits_for_the_spool_and_the_ledger(rig: Rig) -> None:
    rig.turn()
    rig.store.go_away()
    rig.points("v", 1)
    rig.result(KEY)
    rig.turns(4)
    rig.store.failure = None
    rig.commits = False
    assert not rig.writer.may_end(), "it was away for a moment only"
    rig.turns(40)
    assert not rig.writer.may_end()
    rig.commits = True
    rig.turns(2)
    assert rig.writer.may_end()
    rig.finish()


def test_a_drain_leaves_what_is_spooled_when_the_store_stays_away(rig: Rig) -> None:
    rig.turn()
    rig.store.go_away()
    rig.points("v", 1)
    rig.result(KEY)
    before = rig.now
    rig.finish()
    assert DRAIN_PATIENCE_SECONDS < rig.now - before < 2 * DRAIN_PATIENCE_SECONDS
    assert rig.spool.size_bytes > 0
    assert rig.kept == []
    rig.store.failure = None
    rig.start()
    rig.finish()
    assert set(rig.frames) == {"v/1"}
    assert rig.ledger == [(KEY, 0)]


@pytest.mark.parametrize(("patience_seconds", "ends"), [(10_000.0, False), (math.inf, True)])
def test_what_can_be_put_nowhere_holds_up_the_drain_of_those_who_give_up_by_themselves(
    make_rig: Callable[..., Rig], patience_seconds: float, ends: bool
) -> None:
    """The others end: it was not acknowledged, so it is done again."""
    rig = make_rig(patience_seconds, spool_bytes=0)
    rig.turn()
    rig.store.go_away()
    rig.points("v", 1)
    rig.turns(100)
    assert rig.writer.may_end() == ends
    assert len(rig.kept) == 1


def test_closing_tidies_up_only_a_store_that_is_there(rig: Rig) -> None:
    rig.turn()
    rig.store.go_away()
    rig.points("v", 1)
    rig.turns(3)
    rig.access.close()
    assert rig.store.is_closed


# --- everything at once ---------------------------------------------------------------------------------------------

VIDEOS = ("v", "w")
STEPS = st.one_of(
    st.tuples(st.just("points"), st.sampled_from(VIDEOS), st.integers(1, 6)),
    st.tuples(st.just("result")),
    st.tuples(st.just("remove"), st.sampled_from(VIDEOS)),
    st.tuples(st.just("repath"), st.sampled_from(VIDEOS)),
    st.tuples(st.just("label"), st.sampled_from(VIDEOS)),
    st.tuples(st.just("away")),
    st.tuples(st.just("back")),
    st.tuples(st.just("full")),
    st.tuples(st.just("room")),
    st.tuples(st.just("mute")),
    st.tuples(st.just("turn"), st.sampled_from([0.05, 0.5, 12.0])),
    st.tuples(st.just("kill")),
)


def test_the_room_of_removed_points_is_given_back_now_and_then(rig: Rig) -> None:
    rig.points("a", 1)
    rig.turns()
    rig.turns(2, VACUUM_SECONDS)
    assert rig.store.vacuums == 0, "nothing was removed"
    for request in (1, 2, 3):
        rig.operate(Remove(request=request, video_id="a"))
        rig.turns()
    assert rig.store.vacuums == 1
    rig.turns(2, VACUUM_SECONDS)
    assert rig.store.vacuums == 2
    rig.turns(5, VACUUM_SECONDS)
    assert rig.store.vacuums == 2, "nothing was removed since"


class Model:
    """What must be in the store in the end, and what the supervisor may ask meanwhile."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.expected: dict[str, str] = {}  # id → path
        self.results = 0
        self.count = 0

    def step(self, kind: str, *arguments: Any) -> None:
        rig = self.rig
        busy = {operation.video_id for operation in rig.operations.values()}
        match kind, *arguments:
            case "points", video, count if video not in busy:
                numbers = range(self.count, self.count + count)
                self.count += count
                rig.points(video, *numbers, key=TaskKey(self.results, 0))
                self.expected |= {f"{video}/{number}": "old" for number in numbers}
            case ["result"]:
                rig.result(TaskKey(self.results, 0))
                self.results += 1
            case (("remove" | "repath" | "label"), video) if video not in busy:
                self._operate(kind, video)
            case ["away"]:
                rig.store.go_away()
            case ["back"]:
                rig.store.failure = None
            case [("full" | "room") as state]:
                rig.disk_is_full = state == "full"
            case ["mute"]:
                rig.commits = not rig.commits
            case "turn", seconds:
                rig.turn(seconds)
            case ["kill"]:
                rig.kill()
                rig.start()

    def _operate(self, kind: str, video: str) -> None:
        self.count += 1
        if kind == "remove":
            self.rig.operate(Remove(request=self.count, video_id=video))
            self.expected = {name: path for name, path in self.expected.items() if not name.startswith(video)}
        elif kind == "repath":
            self.rig.operate(Repath(request=self.count, video_id=video, shown_path="new"))
            self.expected |= {name: "new" for name in self.expected if name.startswith(video)}
        else:
            self.rig.operate(Label(request=self.count, video_id=video, model="m"))
            self.expected |= {name: "labelled" for name in self.expected if name.startswith(video)}


@given(steps=st.lists(STEPS, max_size=60), spool_bytes=st.sampled_from([0, 1500, 1 << 20]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
def test_whatever_happens_the_store_ends_as_if_nothing_had(
    tmp_path: Path, steps: list[tuple[Any, ...]], spool_bytes: int
) -> None:
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    rig = Rig(tmp_path / "run", math.inf, spool_bytes)
    model = Model(rig)
    for step in steps:
        model.step(*step)
    rig.store.failure, rig.disk_is_full, rig.commits = None, False, True
    rig.finish()
    assert {name: facts["path"] for name, facts in rig.frames.items()} == model.expected
    assert {key.task_id for key, _ in rig.ledger} == set(range(model.results))
    assert rig.kept == []
    assert rig.operations == {}
    assert rig.spool.is_empty
    assert not list((tmp_path / "run").glob("spool/*.*")), "nothing is left on the disk"
