"""A writer with everything around it made up: store, time, disk, engine and supervisor."""

import errno
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.spool import Spool
from engine.spool_segment import encoded
from engine.store_work import Operation, StoreAccess, collection_specs
from engine.writer import Writer
from stages.errors import StoreError, StoreUnavailable
from stages.store import CollectionSpec, Filter, Hit, StoredPoint
from transport.codec import encode, spec_of
from transport.messages import Label, Message, OperationDone, Points, Searchable, TaskDurable, TaskKey, TaskResult

MIB = 1 << 20
DIMENSIONS = {"image": 3}


class FakeStore:
    """A store in memory that is away when it is told to be, and forgets what was not flushed when it dies."""

    def __init__(self) -> None:
        self.collections: dict[str, dict[str, dict[str, Any]]] = {}
        self.failure: StoreError | None = None
        self.calls = 0
        self.upserts: list[int] = []  # points in each
        self.flushes = 0
        self.flush_failure: StoreError | None = None
        self._unflushed: dict[tuple[str, str], dict[str, Any] | None] = {}  # what was there before
        self.vacuums = 0
        self.is_closed = False

    def go_away(self) -> None:
        self.failure = StoreUnavailable("store-busy", "503 from the store")

    def _answer(self) -> None:
        self.calls += 1
        if self.failure is not None:
            raise self.failure

    def ensure(self, specs: Sequence[CollectionSpec]) -> None:
        self._answer()
        for spec in specs:
            self.collections.setdefault(spec.name, {})

    def upsert(self, collection: str, points: Sequence[StoredPoint]) -> None:
        self.put(collection, points)
        self.flush()

    def put(self, collection: str, points: Sequence[StoredPoint]) -> None:
        self._answer()
        self.upserts.append(len(points))
        for point in points:
            self._unflushed.setdefault((collection, point.id), self.collections[collection].get(point.id))
            self.collections[collection][point.id] = dict(point.payload)

    def flush(self) -> None:
        self._answer()
        if self.flush_failure is not None:
            raise self.flush_failure
        self.flushes += 1
        self._unflushed.clear()

    def die(self) -> None:
        """What was not flushed is gone."""
        for (collection, key), before in self._unflushed.items():
            self.collections[collection].pop(key, None)
            if before is not None:
                self.collections[collection][key] = before
        self._unflushed.clear()

    def set_payload(self, collection: str, filter: Filter, payload: Mapping[str, Any]) -> None:
        self.flush()
        for facts in self.collections.get(collection, {}).values():
            if facts["video_id"] == filter.video_id:
                facts.update(payload)

    def delete(self, collection: str, filter: Filter) -> None:
        self.flush()
        kept = self.collections.get(collection, {}).items()
        self.collections[collection] = {key: facts for key, facts in kept if facts["video_id"] != filter.video_id}

    def search(self, collection: str, *arguments: Any, **more: Any) -> list[Hit]:
        self._answer()
        return [Hit(1.0, key, collection, facts) for key, facts in self.collections[collection].items()]

    def scroll(self, collection: str, *arguments: Any, **more: Any) -> Iterator[StoredPoint]:
        self._answer()
        for key, facts in sorted(self.collections.get(collection, {}).items()):
            yield StoredPoint(id=key, collection=collection, payload=facts)

    def count(self, collection: str, filter: Filter | None = None) -> int:
        return len(self.collections[collection])

    def optimize(self) -> None:
        self._answer()
        self.vacuums += 1

    def close(self) -> None:
        self.is_closed = True


class FullDisk(io.FileIO):
    """A file on a disk that is full when `Rig.disk_is_full`."""

    def __init__(self, path: Path, rig: "Rig") -> None:
        super().__init__(path, "ab")
        self._rig = rig

    def write(self, content: Any) -> int:
        if self._rig.disk_is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(content)


def points_message(video: str, numbers: Sequence[int], key: TaskKey) -> tuple[Points, memoryview]:
    """Frames of a video with these numbers."""
    array = np.ones((len(numbers), 3), dtype=np.float16)
    message = Points(
        key=key,
        collection="frames",
        vector="image",
        ids=tuple(f"{video}/{number}" for number in numbers),
        payloads=tuple({"video_id": video, "path": "old", "number": number} for number in numbers),
        array=spec_of(array),
    )
    return message, memoryview(array.tobytes())


def result_message(key: TaskKey, section: int = 0) -> TaskResult:
    """What follows the points of an attempt."""
    return TaskResult(
        key=key,
        points={},
        gaps=(),
        failures=(),
        notes=(),
        speech_seconds=0.0,
        text_seconds=0.0,
        voiced_seconds=0.0,
        voice_seconds=0.0,
        oom_events=0,
        batch_splits=0,
        section=section,
    )


class Labelled:
    """Labels at once."""

    def __init__(self, rig: "Rig") -> None:
        self._rig = rig

    def add(self, message: Label) -> None:
        """Every frame gets its label, which a frame that is written again loses."""
        for facts in self._rig.store.collections["frames"].values():
            if facts["video_id"] == message.video_id:
                facts["path"] = "labelled"
        del self._rig.operations[message.request]

    def forget(self, video_id: str) -> None:
        self._rig.forgotten.append(video_id)


class Rig:
    """An engine that keeps what is not acknowledged, a supervisor with a ledger, and the writer between them."""

    def __init__(
        self,
        directory: Path,
        patience_seconds: float = 1e9,
        spool_bytes: int = MIB,
        batch_points: int = 4,
        commit_bytes: int = MIB,
    ) -> None:
        self.directory = directory
        self.patience_seconds = patience_seconds
        self.spool_bytes = spool_bytes
        self.batch_points = batch_points
        self.commit_bytes = commit_bytes
        self.now = 100.0
        self.store = FakeStore()
        self.disk_is_full = False
        self.commits = True  # whether the supervisor answers
        self.heard: list[Message] = []
        self.ledger: list[tuple[TaskKey, int]] = []
        self.unanswered: list[TaskResult] = []
        self.operations: dict[int, Operation | Label] = {}  # that are not done
        self.forgotten: list[str] = []  # videos whose points were removed
        self.kept: list[tuple[Message, memoryview | None]] = []  # by the engine: not acknowledged
        self.released: list[int] = []
        self.start()

    def start(self, is_prepared: bool = True) -> None:
        """A new consumer; the engine sends again what it keeps, and the supervisor what was not done."""
        clock = lambda: self.now  # noqa: E731
        opener: Any = lambda: self.store  # noqa: E731
        self.access = StoreAccess(opener, self.patience_seconds, clock, lambda low, high: high)
        self.spool = Spool(
            self.directory / "spool",
            self.spool_bytes,
            segment_bytes=600,
            create=lambda path: FullDisk(path, self),
            free_bytes=lambda path: 1 << 40,
        )
        self.writer = Writer(
            self.access, self.spool, self.batch_points, self.commit_bytes, self._hear, Labelled(self), clock=clock
        )
        self.unanswered.clear()
        if is_prepared:
            self.access.prepare(collection_specs(DIMENSIONS))
        for message, payload in self.kept:
            self._pass(message, payload)
        for operation in self.operations.values():
            self.writer.operate(operation)

    def kill(self) -> None:
        """As SIGKILL does, and worse: nothing is flushed, nothing is said."""
        self.spool.close()  # the kernel closes its files
        self.store.die()

    def _hear(self, message: Message) -> None:
        self.heard.append(message)
        match message:
            case TaskDurable(result=result):
                self.unanswered.append(result)
            case OperationDone(request=request):
                del self.operations[request]

    def send(self, message: Message, payload: memoryview | None = None) -> None:
        """The engine sends."""
        self.kept.append((message, payload))
        self._pass(message, payload)

    def _pass(self, message: Any, payload: memoryview | None) -> None:
        self.writer.receive(b"engine", message, payload, cost_of(message, payload))

    def operate(self, operation: Operation | Label) -> None:
        """The supervisor asks for an operation."""
        self.operations[operation.request] = operation
        self.writer.operate(operation)

    def points(self, video: str, *numbers: int, key: TaskKey | None = None) -> None:
        self.send(*points_message(video, numbers, key or TaskKey(1, 0)))

    def result(self, key: TaskKey, section: int = 0) -> None:
        self.send(result_message(key, section))

    def turn(self, seconds: float = 0.05) -> None:
        """One round of the consumer's loop, and what the others do about it."""
        self.writer.step()
        for _, cost_bytes in self.writer.acknowledgements.take_released():
            message, payload = self.kept.pop(0)
            assert cost_bytes == cost_of(message, payload)
            self.released.append(cost_bytes)
        while self.commits and self.unanswered:
            result = self.unanswered.pop(0)
            self.ledger.append((result.key, result.section))
            self.writer.committed(result.key, result.section)
        self.now += seconds

    def turns(self, count: int = 30, seconds: float = 0.5) -> None:
        for _ in range(count):
            self.turn(seconds)

    def finish(self) -> None:
        """Until a drain is over; of a store that is there, until nothing is left."""
        for _ in range(500):
            self.turn(0.5)
            is_empty = self.spool.is_empty and not (self.kept or self.operations)
            if self.writer.may_end() and (is_empty or self.store.failure):
                self.spool.close()
                return
        raise AssertionError(f"it does not end: {self.writer.state()}")

    @property
    def frames(self) -> dict[str, dict[str, Any]]:
        return self.store.collections.get("frames", {})

    @property
    def searchable(self) -> list[TaskKey]:
        return [message.key for message in self.heard if isinstance(message, Searchable)]


def cost_of(message: Message, payload: memoryview | None) -> int:
    return len(encode(message)) + (payload.nbytes if payload is not None else 0)


def record_bytes(message: Message, payload: memoryview | None) -> int:
    """What the message takes in the spool."""
    return len(encoded(encode(message), payload if payload is not None else b""))
