"""The bench of the store: what it makes up is searchable and whole, and a small run of it measures all it says."""

from argparse import ArgumentParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benches import store
from benches.store_points import MODEL, Nearest, Space, id_of, messages, payload_of, stored
from stages.store import point_id
from transport.codec import as_array
from transport.messages import Points, TaskResult, ToConsumer

DIMENSION = 64


@pytest.fixture(scope="module")
def space() -> Space:
    return Space(DIMENSION, topics=50)


def test_the_same_seed_gives_the_same_vectors_however_many_there_are(space: Space) -> None:
    few, many = next(space.frames(100)), np.concatenate(list(space.frames(5000)))
    assert many.shape == (5000, DIMENSION)
    assert many.dtype == np.float16
    np.testing.assert_array_equal(few, many[:100])
    assert not np.array_equal(few, next(space.frames(100, seed=1)))
    np.testing.assert_array_equal(space.queries(3), Space(DIMENSION, topics=50).queries(3))


def test_vectors_lie_as_those_of_an_image_model_do(space: Space) -> None:
    rows = np.concatenate(list(space.frames(2000))).astype(np.float32)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1.0, abs=1e-2)
    between_shots = (rows[::20] @ rows[::20].T)[~np.eye(100, dtype=bool)]
    assert 0.3 < np.median(between_shots) < 0.7, "a common mean"
    assert rows[0] @ rows[1] > 0.9, "one shot"
    assert np.median(space.queries(50) @ rows.T) < np.median(between_shots), "texts have another mean"


def test_the_nearest_are_those_of_all_blocks(space: Space) -> None:
    queries, rows = space.queries(5), np.concatenate(list(space.frames(900)))
    nearest = Nearest(queries, 10)
    for first in range(0, 900, 300):
        nearest.add(rows[first : first + 300])
    best = np.argsort(-(queries @ rows.astype(np.float32).T), axis=1)[:, :10]
    assert nearest.ids == [{id_of(int(number)) for number in row} for row in best]


@pytest.mark.parametrize("batch", [7, 32, 100])
def test_messages_carry_every_point_once_and_a_result_behind_each_task(space: Space, batch: int) -> None:
    rows = next(space.frames(150))
    decode = msgspec.msgpack.Decoder(ToConsumer).decode
    found: dict[str, np.ndarray] = {}
    results = []
    for outgoing in messages(3590, rows, batch):
        message = decode(outgoing.header)
        if isinstance(message, TaskResult):
            results.append(message.points["frames"])
            continue
        assert isinstance(message, Points)
        assert len(message.ids) <= batch
        assert outgoing.array is not None
        sent = as_array(message.array, outgoing.array.tobytes())
        found |= dict(zip(message.ids, sent, strict=True))
    assert results == [60, 60, 30]
    assert list(found) == [id_of(number) for number in range(3590, 3740)]
    for point, row in zip(stored(3590, rows), found.values(), strict=True):
        np.testing.assert_array_equal(point.vectors["image"], row)


def test_ids_and_payloads_are_those_of_an_archive() -> None:
    assert payload_of(7201)["start_seconds"] == 1.0
    assert id_of(7201) == point_id(payload_of(7201)["video_id"], "image", MODEL, 1)
    assert len({id_of(number) for number in range(8000)}) == 8000


def test_a_small_run_measures_every_way_and_every_search(tmp_path: Path) -> None:
    parser = ArgumentParser()
    store.add_arguments(parser)
    options = ["--written", "256", "--dimension", "64", "--rounds", "1", "--points", "600"]
    arguments = parser.parse_args([*options, "--store", str(tmp_path / "kept")])
    arguments.results = tmp_path
    findings = store.measure(arguments)
    writing, others, searching = findings.tables
    places = {str(row[0]).partition(", ")[2] for row in writing.rows}
    assert "disk" in places
    assert len(writing.rows) == 4 * len(places)
    assert len(others.rows) == 3
    cells = [cell for row in (*writing.rows, *others.rows) for cell in row[1:] if cell is not None]
    assert all(isinstance(cell, float) and cell > 0 for cell in cells)
    by_codes, by_vectors, *_ = searching.rows
    assert by_codes[-1] == by_vectors[-1] == 1.0, "recall of so few points is whole"
    assert {ratio.is_met for ratio in findings.ratios} <= {True, False, None}
    assert [path.name for path in tmp_path.iterdir()] == ["kept"], "the rest is removed"
