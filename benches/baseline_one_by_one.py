"""Baseline (a), the way of the systems before us: one video after the other, one step after the other.

python -m benches.baseline_one_by_one JOB, where JOB is a `Job` as JSON. Prints a line of JSON when the models are
loaded, and one for each video that is stored.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benches.baseline_models import Models, load_models
from benches.baseline_steps import Indexed, Reader, index, span_of, text_of
from stages import registry
from stages.options import ModelOptions, StoreOptions
from stages.qdrant import open_store
from stages.store import FRAMES, SPEECH, VOICES, Store, StoredPoint, frames_spec, point_id, speech_spec, voices_spec

UPSERT_POINTS = 256
MAKERS = {FRAMES: ("image", frames_spec), SPEECH: ("text", speech_spec), VOICES: ("voice", voices_spec)}


class Job(msgspec.Struct, frozen=True):
    """What a baseline shall do."""

    media: tuple[str, ...]
    store: str  # directory
    image: str  # directories of models
    speech: str
    voice: str
    reader: Reader = "pyav"
    speech_batch: int = 8
    workers: int = 1


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Models are loaded."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    """One video is stored."""

    path: str
    wall_seconds: float
    points: dict[str, int]
    steps: dict[str, float]  # seconds


def tell(event: Ready | Done) -> None:
    """To whoever started this."""
    print(msgspec.json.encode(event).decode(), flush=True)


def load(job: Job, threads: int | None = None) -> Models:
    """The models of a job."""
    return load_models(Path(job.image), Path(job.speech), text_model(), Path(job.voice), threads)


def text_model() -> Path:
    """The directory of Sluice's default, all-MiniLM-L6-v2."""
    return registry.resolve("text", ModelOptions().text, Path())


Item = tuple[tuple[float, float], Any, dict[str, Any]]  # from when to when, vector, payload beside path and time


def points_of(path: str, found: Indexed) -> dict[str, list[StoredPoint]]:
    """As Sluice would store them."""
    items: dict[str, list[Item]] = {
        FRAMES: [((at, at + 1), vector, {}) for at, vector in found.frames],
        SPEECH: [(span_of(phrase), vector, speech_payload(phrase, found.language)) for phrase, vector in found.speech],
        VOICES: [(span, vector, {}) for span, vector in found.voices],
    }
    return {
        collection: [point(path, collection, number, item) for number, item in enumerate(some)]
        for collection, some in items.items()
    }


def point(path: str, collection: str, position: int, item: Item) -> StoredPoint:
    """One of a video's."""
    (start, end), vector, more = item
    payload = {"video_id": path, "path": path, "start_seconds": start, "end_seconds": end, "model": "baseline"}
    id_ = point_id(path, collection, "baseline", position)
    return StoredPoint(id_, collection, {**payload, **more}, {MAKERS[collection][0]: vector})


def speech_payload(phrase: Sequence[Any], language: str) -> dict[str, Any]:
    """What a phrase has beside its time."""
    words = [{"start_seconds": w.start_seconds, "end_seconds": w.end_seconds, "text": w.text.strip()} for w in phrase]
    return {"text": text_of(phrase), "language": language, "source": "asr", "words": words}


def write(store: Store, points: dict[str, list[StoredPoint]]) -> None:
    """In batches, each durable before the next."""
    for collection, some in points.items():
        if some:
            vector, spec = MAKERS[collection]
            store.ensure([spec(len(some[0].vectors[vector]))])
        for first in range(0, len(some), UPSERT_POINTS):
            store.upsert(collection, some[first : first + UPSERT_POINTS])


def stored(store: Store, path: str, found: Indexed, begin: float) -> Done:
    """Write what was found; begin: when work on the video began, by time.perf_counter."""
    points = points_of(path, found)
    with found.step("upsert"):
        write(store, points)
    counts = {collection: len(some) for collection, some in points.items()}
    return Done(path, time.perf_counter() - begin, counts, found.seconds)


def run(job: Job) -> Iterator[Ready | Done]:
    """All videos."""
    models = load(job)
    store = open_store(StoreOptions(path=job.store), None)
    yield Ready()
    for path in job.media:
        begin = time.perf_counter()
        found = index(path, models, job.reader, job.speech_batch)
        yield stored(store, path, found, begin)
    store.close()


if __name__ == "__main__":
    for event in run(msgspec.json.decode(sys.argv[1], type=Job)):
        tell(event)
