"""Whether a store holds what it should: every point once, with the payload and the vectors of an undisturbed run."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Point = Mapping[str, Any]  # {"collection", "id", "payload", "vectors"}, as engine.search.all_points gives them

LEAST_COSINE = 0.999  # batches of other sizes round otherwise, and vectors travel as float16
LARGEST_DIFFERENCE = 1e-2  # of lengths, and of the weights of sparse vectors, to the largest component
# What is computed from vectors, and so differs by their rounding: cosines, and the borders of turns.
LARGEST_OF = {"speaker_score": 1e-2, "self_score": 1e-2, "match_score": 1e-2, "turns": 0.3}


def differences(expected: Iterable[Point], found: Iterable[Point]) -> list[str]:
    """What is lost, doubled, unknown or other than expected, a line each; empty where all is well."""
    wanted = {point["id"]: point for point in expected}
    stored = list(found)
    had = {point["id"]: point for point in stored}
    return [
        *(f"lost: {_shown(wanted[name])}" for name in sorted(wanted.keys() - had.keys())),
        *_doubled(stored, wanted),
        *(line for name in sorted(wanted.keys() & had.keys()) for line in _changed(wanted[name], had[name])),
    ]


def _shown(point: Point) -> str:
    payload = point["payload"]
    span = f"{payload.get('start_seconds')}-{payload.get('end_seconds')} s"
    return f"{point['collection']} {span} of {payload.get('path')} ({point['id']})"


def _doubled(stored: Sequence[Point], wanted: Mapping[str, Point]) -> Iterator[str]:
    """Ids that stand there twice, and ids that should not be there: next to another of their place, or for nothing."""
    times, places = Counter(point["id"] for point in stored), defaultdict(set)
    for point in stored:
        places[_place(point)].add(point["id"])
    for name, point in sorted({point["id"]: point for point in stored}.items()):
        others = places[_place(point)] - {name}
        if times[name] > 1:
            yield f"doubled: {_shown(point)} is there {times[name]} times"
        if name not in wanted:
            yield f"doubled: {_shown(point)} beside {min(others)}" if others else f"unknown: {_shown(point)}"


def _place(point: Point) -> tuple[Any, ...]:
    payload = point["payload"]
    fields = ("video_id", "model", "start_seconds", "end_seconds", "text")
    return (point["collection"], *(payload.get(field) for field in fields))


def _changed(wanted: Point, had: Point) -> Iterator[str]:
    if wanted["collection"] != had["collection"]:
        yield f"collection: {_shown(had)} belongs to {wanted['collection']}"
    keys = sorted(wanted["payload"].keys() | had["payload"].keys())
    for key in keys:
        ours, theirs = wanted["payload"].get(key), had["payload"].get(key)
        if not same_value(key, ours, theirs):
            yield f"payload: {_shown(had)}: {key} is {json.dumps(theirs)}, not {json.dumps(ours)}"
    yield from _changed_vectors(wanted, had)


def same_value(key: str, ours: Any, theirs: Any) -> bool:
    """Whether two values of a payload field are the same, but for what follows from the rounding of vectors."""
    if ours == theirs or key not in LARGEST_OF or ours is None or theirs is None:
        return bool(ours == theirs)
    first, second = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return first.shape == second.shape and bool((np.abs(first - second) <= LARGEST_OF[key]).all())


def _changed_vectors(wanted: Point, had: Point) -> Iterator[str]:
    ours, theirs = wanted["vectors"] or {}, had["vectors"] or {}
    if ours.keys() != theirs.keys():
        yield f"vectors: {_shown(had)} has {sorted(theirs)}, not {sorted(ours)}"
    for name in sorted(ours.keys() & theirs.keys()):
        if not same_vector(ours[name], theirs[name]):
            yield f"vector: {_shown(had)}: {name} differs"


def same_vector(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Same direction and length, but for rounding."""
    first, second = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if first.shape != second.shape or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return False
    lengths = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    if 0.0 in lengths:
        return lengths == (0.0, 0.0)
    cosine = float(first @ second) / (lengths[0] * lengths[1])
    return cosine >= LEAST_COSINE and abs(lengths[0] - lengths[1]) <= LARGEST_DIFFERENCE * max(lengths)
