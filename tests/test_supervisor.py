"""The supervisor's turns over children that are played: what becomes of files that move, change, vanish and come twice
while they are in work, and of a run that is to end while the ledger or the store is away. No processes.
"""

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.config import load_config
from engine.errors import StartError
from engine.files import Found
from engine.guard import Guard
from engine.ledger_schema import LedgerUnavailable
from engine.supervisor import Supervisor
from tests import test_guard
from tests.runs import Meddler, settings_for
from tests.test_tasks import FORMAT, media, result
from transport.messages import (
    Abort,
    ConsumerStats,
    Decoded,
    DecodeFrames,
    Gap,
    ItemFailure,
    Message,
    OperationDone,
    Probe,
    Probed,
    Ready,
    Receiving,
    RecordVideo,
    Remove,
    Repath,
    TaskDurable,
    TaskFailed,
    TaskKey,
)
from transport.sockets import Received

ITEM = ItemFailure(kind="image", start_seconds=0.0, end_seconds=1.0, code="out-of-memory", message="too large")


class Fleet(test_guard.Fleet):
    """Children that are played by the test."""

    def engine_is_ready(self, ready: Ready) -> None:
        """Nobody has to prepare anything."""

    def heard(self, child: Any, message: Any) -> None:
        """The same."""


class Files:
    """Gives what the watcher would find."""

    is_over = False

    def __init__(self) -> None:
        self.found: deque[Path] = deque()

    def take(self, above: int | None) -> Found | None:
        return Found(os.fsencode(self.found.popleft())) if self.found and above is None else None


class Extension:
    """As much of a daemon as the supervisor needs."""

    def started(self, directory: Path) -> None: ...

    def ready(self, child: Any) -> None: ...

    def heard(self, message: Any) -> None: ...

    def turn(self) -> None: ...

    def tick(self) -> None: ...


class Played:
    """A daemon's supervisor and its children."""

    def __init__(self, settings: list[str]) -> None:
        self.files = Files()
        self.observer = Meddler()
        self.supervisor = Supervisor(load_config(settings=settings), self.observer, extension=Extension())
        self.observer.supervisor = self.supervisor
        self.records = self.supervisor.records
        self.fleet = Fleet(2)
        self.settled: list[bytes] = []
        self.records.on_settled = self.settled.append
        self.start()

    def start(self) -> None:
        run, fleet = self.supervisor, self.fleet
        run.fleet = fleet  # type: ignore[assignment]
        run.guard = Guard(run._config, fleet, run.recovery, run._take, run._tell, endless=True)  # type: ignore[arg-type]
        self.says(fleet.engine, Receiving(frame_format=FORMAT))
        for child in fleet.children:
            self.says(child, Ready(role=child.spec.role, index=0, frame_format=FORMAT, device="cpu"))
        self.turn()

    def says(self, child: Any, message: Message) -> None:
        self.fleet.coming.append(Received(child.identity, message, None, 0))

    def turn(self) -> bool:
        return self.supervisor._turn(self.files)

    def told(self, *kinds: type[Message]) -> list[Any]:
        """Take what was sent to anybody, of these kinds."""
        mine = [message for _, message in self.fleet.sent if isinstance(message, kinds)]
        self.fleet.sent = [each for each in self.fleet.sent if not isinstance(each[1], kinds)]
        return mine

    def give(self, path: Path) -> None:
        self.files.found.append(path)
        self.turn()

    def task(self, kind: type[Message] = DecodeFrames) -> tuple[Any, Any]:
        """A decoder, and the oldest task of this kind that it was given."""
        name, task = next(each for each in self.fleet.sent if isinstance(each[1], kind))
        self.fleet.sent.remove((name, task))
        return next(child for child in self.fleet.decoders if child.name == name), task

    def probe(self) -> str:
        """Answer the probe that was given; returns the content's id."""
        decoder, task = self.task(Probe)
        path = Path(os.fsdecode(task.path))
        stat, video_id = path.stat(), hashlib.sha256(path.read_bytes()).hexdigest()
        facts: dict[str, Any] = {"size_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "media": media(audio=None)}
        self.says(decoder, Probed(key=task.key, video_id=video_id, **facts))
        self.turn()
        return video_id

    def do(self, **facts: Any) -> None:
        """Have a span decoded, and all of it durable."""
        decoder, task = self.task()
        self.says(decoder, Decoded(key=task.key))
        self.says(self.fleet.consumer, TaskDurable(result=result(task.key, points={"frames": 5}, **facts)))
        self.turn()

    def fail(self, code: str) -> None:
        decoder, task = self.task()
        self.says(decoder, TaskFailed(key=task.key, code=code, message="it is not there"))
        self.turn()

    def finish(self) -> None:
        """Do all there is."""
        while self.supervisor.board is not None and self.supervisor.board.jobs:
            self.do()

    def operations(self) -> list[Any]:
        """What the store was told, and has done."""
        done = self.told(Repath, Remove, RecordVideo)
        for operation in done:
            self.says(self.fleet.consumer, OperationDone(request=operation.request))
        self.turn()
        return done

    def is_known(self, path: Path) -> bool:
        """Whether the watcher takes it for dealt with, as it is."""
        row, stat = self.records.ledger.files.find(os.fsencode(path)), path.stat()
        return row is not None and row.state != "gone" and row.marks.size_bytes == stat.st_size

    def is_indexed(self, video_id: str) -> bool:
        return self.records.ledger.known_video(video_id) is not None


@pytest.fixture
def settings(tiny_models: Any, tmp_path: Path) -> list[str]:
    return settings_for(tiny_models, tmp_path, "models.speech=off", "models.voice=off")


@pytest.fixture
def played(settings: list[str]) -> Iterator[Played]:
    played = Played(settings)
    yield played
    played.records.ledger.close()
    played.supervisor.context.destroy(linger=0)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"a film")
    return path


def test_a_film_is_indexed_span_by_span_and_recorded(played: Played, film: Path) -> None:
    played.give(film)
    video_id = played.probe()
    played.finish()
    played.turn()
    assert played.is_indexed(video_id)
    assert played.is_known(film)
    assert played.settled == [os.fsencode(film)]
    assert [type(each) for each in played.operations()] == [RecordVideo]


def test_a_film_is_recorded_when_nothing_can_come_of_an_attempt_that_another_one_made_needless(
    played: Played, film: Path
) -> None:
    """A decoder dies when its task is sent, which is given to another; then the first attempt is durable after all.

    What the other one still brought would be written behind what is done with the film when it is finished.
    """
    played.give(film)
    played.probe()
    while sum(isinstance(message, DecodeFrames) for _, message in played.fleet.sent) > 1:
        played.do()
    decoder, first = played.task()
    played.says(decoder, Decoded(key=first.key))
    played.turn()
    decoder.die(-11)
    played.turn()
    (lost,) = played.told(Abort)
    assert lost.key == first.key
    _, second = played.task()
    assert second.key == TaskKey(first.key.task_id, 1)
    played.says(played.fleet.consumer, TaskDurable(result=result(first.key, points={"frames": 5})))
    played.fleet.is_settled = False
    played.turn()
    assert [abort.key for abort in played.told(Abort)] == [second.key]
    assert played.operations() == []
    played.fleet.is_settled = True
    played.turn()
    assert [type(each) for each in played.operations()] == [RecordVideo]


# --- copies and moves during work -------------------------------------------------------------------------------------


def test_a_copy_that_comes_while_the_film_is_in_work_changes_no_path(played: Played, film: Path) -> None:
    played.give(film)
    video_id = played.probe()
    copy = film.with_name("copy.mp4")
    copy.write_bytes(film.read_bytes())
    played.give(copy)
    played.do()
    played.do()
    assert played.probe() == video_id
    assert played.records.ledger.videos.path_of(video_id) == os.fsencode(film)
    played.finish()
    played.turn()
    assert not [each for each in played.operations() if isinstance(each, Repath)]
    assert played.is_known(copy)
    assert played.is_indexed(video_id)


def move_in_work(played: Played, film: Path) -> tuple[str, Path]:
    """The film is moved behind its first span; its new name is found at once, and the old one fails."""
    played.give(film)
    video_id = played.probe()
    moved = film.with_name("moved.mp4")
    film.rename(moved)
    played.give(moved)
    played.do()
    played.fail("not-found")
    assert played.probe() == video_id  # found under its new name
    played.fail("not-found")
    played.turn()
    return video_id, moved


@pytest.mark.parametrize("on_delete", ["keep", "remove"])
def test_a_film_that_is_moved_while_it_is_in_work_is_indexed_under_its_new_name(
    played: Played, film: Path, on_delete: Any
) -> None:
    played.records.archive.on_delete = on_delete
    video_id, moved = move_in_work(played, film)
    assert not played.is_indexed(video_id)
    assert not played.is_known(moved), "the watcher gives it again"
    assert os.fsencode(moved) in played.settled
    played.give(moved)
    played.probe()
    assert not [each for each in played.operations() if isinstance(each, Remove)]
    played.finish()
    played.turn()
    assert played.is_indexed(video_id)
    assert played.is_known(moved)
    assert played.records.ledger.videos.path_of(video_id) == os.fsencode(moved)


def test_a_copy_of_a_film_that_changes_in_work_is_indexed_by_itself(played: Played, film: Path) -> None:
    played.give(film)
    video_id = played.probe()
    copy = film.with_name("copy.mp4")
    copy.write_bytes(film.read_bytes())
    played.give(copy)
    played.do()
    played.do()
    assert played.probe() == video_id
    film.write_bytes(b"another film altogether")
    played.finish()
    played.turn()
    assert not played.is_indexed(video_id), "who knows what was read"
    assert not played.is_known(copy)
    assert not played.is_known(film)


# --- what is to be tried again by itself ------------------------------------------------------------------------------


def test_a_film_with_failed_items_that_is_interrupted_goes_on_at_the_next_start(
    played: Played, settings: list[str], film: Path
) -> None:
    played.give(film)
    video_id = played.probe()
    played.do(failures=(ITEM,))
    played.supervisor._draining = True
    assert played.turn()
    played.do()
    assert played.supervisor.board is not None
    assert not played.supervisor.board.is_done
    del played.fleet.decoders[1:]
    played.supervisor.board.stop_all(0.0)
    played.turn()
    assert played.supervisor.board.is_done
    assert not played.is_known(film), "the watcher gives it again"
    row = played.records.ledger.videos.find(video_id)[0]
    assert row.state == "working"


def test_a_film_with_failed_items_that_changes_in_work_is_indexed_anew(played: Played, film: Path) -> None:
    played.give(film)
    played.probe()
    played.do(failures=(ITEM,))
    film.write_bytes(b"another film altogether")
    played.finish()
    played.turn()
    assert not played.is_known(film), "the watcher gives it again"
    played.give(film)
    played.probe()
    played.finish()
    played.turn()
    assert any(isinstance(each, Remove) for each in played.operations()), "the old one's points go"


def test_a_film_that_goes_away_behind_a_failed_item_is_no_failed_film(played: Played, film: Path) -> None:
    played.give(film)
    played.probe()
    played.do(failures=(ITEM,))
    data = film.read_bytes()
    film.unlink()
    played.fail("not-found")
    played.fail("not-found")
    film.write_bytes(data)
    played.turn()
    assert not played.is_known(film)


def test_a_span_of_which_the_file_was_away_is_read_again(played: Played, film: Path) -> None:
    played.give(film)
    video_id = played.probe()
    data = film.read_bytes()
    played.do(gaps=(Gap(start_seconds=10.0, end_seconds=60.0, reason="not-found: there is no such file"),))
    played.finish()
    film.unlink()
    played.turn()
    film.write_bytes(data)
    played.give(film)
    assert played.probe() == video_id
    played.do()
    played.turn()
    assert played.is_indexed(video_id)


def test_content_that_other_known_content_replaces_while_it_is_in_work_leaves_no_points(
    played: Played, film: Path, tmp_path: Path
) -> None:
    other = tmp_path / "b.mp4"
    other.write_bytes(b"another film, known already")
    played.give(other)
    known = played.probe()
    played.finish()
    played.turn()
    played.give(film)
    video_id = played.probe()
    played.do()
    other.rename(film)
    played.give(film)  # settled at once
    assert played.records.ledger.videos.path_of(known) == os.fsencode(film)
    played.finish()
    played.turn()
    assert [each.video_id for each in played.operations() if isinstance(each, Remove)] == [video_id]
    assert played.records.ledger.videos.path_of(video_id) is None
    assert played.is_indexed(known)


@pytest.mark.parametrize("reads_on", [True, False])
def test_a_known_film_that_is_deleted_while_it_is_in_work_again_is_removed_when_that_ends(
    played: Played, film: Path, reads_on: bool
) -> None:
    played.records.archive.on_delete = "remove"
    played.give(film)
    video_id = played.probe()
    played.do(failures=(ITEM,))
    played.finish()
    played.turn()
    assert played.records.ledger.files.clear_failure(path=os.fsencode(film))
    played.records.ledger.tasks.retry(video_id)
    played.operations()
    played.give(film)
    played.probe()
    film.unlink()
    played.records.archive.gone(os.fsencode(film))
    assert played.operations() == [], "not yet: points of it are on their way"
    if reads_on:
        played.finish()
    else:
        played.fail("not-found")
    played.turn()
    assert [each.video_id for each in played.operations() if isinstance(each, Remove)] == [video_id]


# --- the end of a run -------------------------------------------------------------------------------------------------


def test_a_drain_ends_while_the_store_is_away_and_a_removal_holds_up_a_film(played: Played, film: Path) -> None:
    played.give(film)
    video_id = played.probe()
    played.finish()
    played.turn()
    played.records.archive.forget(video_id)
    played.give(film)
    copy = film.with_name("copy.mp4")
    copy.write_bytes(film.read_bytes())
    played.give(copy)
    played.probe()  # waits for the removal
    now = [0.0]
    played.supervisor._store._clock = lambda: now[0]
    facts: dict[str, Any] = {"points": 0, "queued_bytes": 0, "retries": 1, "peak_rss_bytes": 0}
    played.says(played.fleet.consumer, ConsumerStats(state="waiting: away", **facts))
    played.supervisor._draining = True
    assert played.turn()
    now[0] = 60.0
    assert not all([played.turn(), played.turn()]), "it ends"


class Away:
    """A ledger that cannot be had."""

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        raise LedgerUnavailable("ledger-unavailable", "the disk is full")


def test_children_are_replaced_while_the_ledger_is_away(
    played: Played, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.give(film)
    played.probe()
    monkeypatch.setattr(played.records.ledger.tasks, "section", Away())
    with pytest.raises(LedgerUnavailable):
        played.do()
    dead = played.fleet.consumer
    dead.die(-9)
    for _ in range(3):
        with pytest.raises(LedgerUnavailable):
            played.turn()
    assert played.fleet.consumer is not dead


def test_a_run_that_is_to_end_while_the_ledger_is_away_ends(
    played: Played, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.give(film)
    played.probe()
    monkeypatch.setattr(played.records.ledger.tasks, "section", Away())
    with pytest.raises(LedgerUnavailable):
        played.do()
    played.supervisor._draining = True
    now = [0.0]
    played.supervisor._patience._clock = lambda: now[0]
    assert played.supervisor._patience.attempt(played.supervisor._turn, played.files)
    now[0] = 600.0
    with pytest.raises(StartError, match="the disk is full; waited for 600 s"):
        played.supervisor._patience.attempt(played.supervisor._turn, played.files)
