"""Made vectors that are as hard to search as those of CLIP, and the points and messages that carry them.

Vectors of CLIP are no ball: all images share a mean direction with a few heavy dimensions (the cosine of two unrelated
ones is about 0.5), texts share another, the spectrum falls, and neighbours of one shot are nearly alike. Uniformly
random vectors are easier to code and have no neighbours worth finding.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benches.corpus import SEED
from engine.outbox import Outgoing
from stages.store import FRAMES, StoredPoint, point_id
from transport.codec import spec_of
from transport.messages import Points, TaskKey, TaskResult

FILM_SECONDS = 3600  # of each made film, a frame a second
TASK_SECONDS = 60  # frames of one task: decode.span_seconds
MODEL = "clip@1"
_SHOT_FRAMES = 20
_BLOCK = 4096
_MEAN = 0.7  # length of the common part of a unit vector

Vectors = NDArray[np.float16]


class Space:
    """A space of vectors [dimension] with topics; the same seed gives the same vectors."""

    def __init__(self, dimension: int, topics: int = 20_000) -> None:
        random = np.random.default_rng(SEED)
        self.dimension = dimension
        self._rotation = np.linalg.qr(random.standard_normal((dimension, dimension)))[0].astype(np.float32)
        scale = np.arange(1, dimension + 1, dtype=np.float32) ** -0.5
        self._scale = scale / np.linalg.norm(scale)
        self._topics = self._content(random, topics)
        heavy = np.zeros(dimension, dtype=np.float32)
        heavy[[dimension // 4, dimension // 5]] = 1.2, -0.6
        self._image_mean = _MEAN * _unit(_unit(random.standard_normal(dimension)) + heavy)
        self._text_mean = _MEAN * _unit(_unit(random.standard_normal(dimension)) + 0.3 * heavy + 0.3 * self._image_mean)

    def _content(self, random: np.random.Generator, count: int) -> NDArray[np.float32]:
        drawn = random.standard_normal((count, self.dimension), dtype=np.float32)
        return _unit((drawn * self._scale) @ self._rotation)

    def _about(self, mean: NDArray[np.float32], content: NDArray[np.float32]) -> NDArray[np.float32]:
        return _unit(mean + np.float32((1 - _MEAN**2) ** 0.5) * _unit(content))

    def frames(self, count: int, seed: int = 0) -> Iterator[Vectors]:
        """Float16 [up to 4096, dimension]: shots of 20 frames, each about a topic."""
        for first in range(0, count, _BLOCK):
            random = np.random.default_rng((seed, first))
            shots = -(-_BLOCK // _SHOT_FRAMES)
            topic = self._topics[random.integers(0, len(self._topics), shots)]
            shot = 0.8 * topic + 0.6 * self._content(random, shots)
            content = np.repeat(shot, _SHOT_FRAMES, axis=0)[:_BLOCK] + 0.25 * self._content(random, _BLOCK)
            yield self._about(self._image_mean, content)[: count - first].astype(np.float16)

    def queries(self, count: int) -> NDArray[np.float32]:
        """Float32 [count, dimension]: texts, each loosely about a topic."""
        random = np.random.default_rng((SEED, 1))
        topic = self._topics[random.integers(0, len(self._topics), count)]
        return self._about(self._text_mean, 0.4 * topic + 0.9 * self._content(random, count))


def _unit(rows: Any) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / lengths, dtype=np.float32)


class Nearest:
    """The true nearest of all rows that were added: exact cosines of float32."""

    def __init__(self, queries: NDArray[np.float32], limit: int) -> None:
        self._queries = queries
        self._limit = limit
        self._scores = np.empty((len(queries), 0), dtype=np.float32)
        self._numbers = np.empty((len(queries), 0), dtype=np.int64)
        self._count = 0

    def add(self, rows: Vectors) -> None:
        """Rows have the numbers that follow those before."""
        scores = np.concatenate((self._scores, self._queries @ rows.astype(np.float32).T), axis=1)
        numbers = np.broadcast_to(np.arange(self._count, self._count + len(rows)), (len(self._queries), len(rows)))
        numbers = np.concatenate((self._numbers, numbers), axis=1)
        best = np.argsort(-scores, axis=1)[:, : self._limit]
        self._scores, self._numbers = np.take_along_axis(scores, best, 1), np.take_along_axis(numbers, best, 1)
        self._count += len(rows)

    @cached_property
    def ids(self) -> list[set[str]]:
        """By query."""
        return [{id_of(int(number)) for number in row} for row in self._numbers]


def id_of(number: int) -> str:
    """Of a frame."""
    film, second = divmod(number, FILM_SECONDS)
    return point_id(f"{film:064x}", "image", MODEL, second)


def payload_of(number: int) -> dict[str, Any]:
    """As the engine makes it for a frame."""
    film, second = divmod(number, FILM_SECONDS)
    return {
        "video_id": f"{film:064x}",
        "path": f"/archive/films/film {film}.mp4",
        "start_seconds": float(second),
        "end_seconds": second + 1.0,
        "model": MODEL,
    }


def stored(first: int, rows: Vectors) -> list[StoredPoint]:
    """Points to put into a store, the first of which has this number."""
    return [
        StoredPoint(id_of(number), FRAMES, payload_of(number), {"image": row}) for number, row in enumerate(rows, first)
    ]


def messages(first: int, rows: Vectors, batch: int) -> Iterator[Outgoing]:
    """As the engine sends them: batches of a model, and a result behind each task."""
    for start in range(0, len(rows), TASK_SECONDS):
        key = TaskKey((first + start) // TASK_SECONDS, 0)
        numbers = range(first + start, first + min(start + TASK_SECONDS, len(rows)))
        for part in range(0, len(numbers), batch):
            yield _points(key, numbers[part : part + batch], rows[start + part :][: len(numbers[part : part + batch])])
        yield Outgoing(_result(key, len(numbers)))


def _points(key: TaskKey, numbers: Sequence[int], rows: Vectors) -> Outgoing:
    message = Points(
        key=key,
        collection=FRAMES,
        vector="image",
        ids=tuple(map(id_of, numbers)),
        payloads=tuple(map(payload_of, numbers)),
        array=spec_of(rows),
    )
    return Outgoing(message, rows)


def _result(key: TaskKey, points: int) -> TaskResult:
    return TaskResult(
        key=key,
        points={FRAMES: points},
        gaps=(),
        failures=(),
        notes=(),
        speech_seconds=0.0,
        text_seconds=0.0,
        voiced_seconds=0.0,
        voice_seconds=0.0,
        oom_events=0,
        batch_splits=0,
    )
