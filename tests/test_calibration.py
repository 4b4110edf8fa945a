"""Probing that stops in time, and a file of costs that is exact, whole, and never in the way of a start."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import calibration
from engine.budget import CostModel
from engine.calibration import FILE_NAME, CalibrationFile, SavedModel, key_of, probe, restored, saved
from engine.device import Peak
from engine.simulated_device import Cost, SimulatedClock, SimulatedDevice, SimulatedModel
from transport.messages import ModelInfo

MIB = 1024**2
GIB = 1024**3
INFO = ModelInfo(role="image", name="clip", revision="abc", dimension=8, untrained=False)
COST = Cost(weights_bytes=100 * MIB, batch_bytes=20 * MIB, item_bytes=10 * MIB, batch_seconds=1.0, item_seconds=1.0)

histories = st.lists(
    st.tuples(st.booleans(), st.integers(1, 300), st.integers(0, 10**5), st.integers(0, 1 << 45)), max_size=30
)


def learned(history: list[tuple[bool, int, int, int]]) -> CostModel:
    cost = CostModel()
    for went_well, count, length, bytes_ in history:
        if went_well:
            cost.observe(count, length, bytes_)
        else:
            cost.ran_out(count, length, bytes_)
    return cost


def entry(bytes_: int = 1000) -> SavedModel:
    cost = CostModel()
    cost.observe(4, 10, bytes_)
    return saved(cost, fixed_bytes=bytes_, batch=32)


# --- probing ----------------------------------------------------------------------------------------------------------


class Bench:
    """A model on a simulated device, and what was probed."""

    def __init__(self, device: SimulatedDevice, **more: Any) -> None:
        self.clock = SimulatedClock()
        self.device = device
        self.model = SimulatedModel(INFO, more.pop("cost", COST), device, self.clock.sleep, probe_length=100, **more)
        self.cost = CostModel()

    def room(self) -> int:
        reading = self.device.read()
        return reading.free_bytes + reading.cached_bytes

    def probe(
        self, most: int, until: Callable[[], bool] = lambda: False, room: Callable[[], int] | None = None
    ) -> list[int]:
        """Returns the sizes that went well."""
        probe(self.model, self.device, self.cost, room or self.room, most, until)
        return sorted(count for row in self.cost.rows.values() for count in row)


def test_probes_double_up_to_the_most_that_is_asked_for() -> None:
    bench = Bench(SimulatedDevice(4 * GIB))
    assert bench.probe(24) == [1, 2, 4, 8, 16]
    assert [bench.cost.expect(count, 100) for count in (1, 2, 16)] == [30 * MIB, 40 * MIB, 180 * MIB]
    assert bench.clock() == 5 + 31


def test_probes_stop_before_what_is_predicted_not_to_fit() -> None:
    bench = Bench(SimulatedDevice(300 * MIB))
    assert bench.probe(64) == [1, 2, 4, 8]
    assert not bench.cost.failures, "16 items take 180 MiB of 200, and with the margin more than that"
    assert bench.device.highest_bytes <= 300 * MIB


def test_probes_stop_when_one_runs_out_of_memory() -> None:
    bench = Bench(SimulatedDevice(300 * MIB))
    assert bench.probe(64, room=lambda: GIB) == [1, 2, 4, 8, 16]
    assert bench.cost.failures == {7: {32: GIB}}
    assert bench.device.read().cached_bytes == 0, "and give back what they left"


def test_probes_outside_torch_stop_by_its_text() -> None:
    cost = Cost(100 * MIB, 20 * MIB, 10 * MIB, 0, 0, outside_torch=True)
    bench = Bench(SimulatedDevice(300 * MIB), cost=cost)
    assert bench.probe(64, room=lambda: GIB) == [1, 2, 4, 8, 16]
    assert list(bench.cost.failures) == [7]


def test_not_even_one_may_fit() -> None:
    bench = Bench(SimulatedDevice(110 * MIB))
    assert bench.probe(64) == []
    assert bench.cost.failures == {7: {1: 10 * MIB}}


def test_probes_stop_when_their_time_is_over() -> None:
    bench = Bench(SimulatedDevice(4 * GIB))
    assert bench.probe(64, until=lambda: bench.clock() >= 5) == [1, 2]


def test_what_a_probe_raises_otherwise_is_not_swallowed() -> None:
    bench = Bench(SimulatedDevice(4 * GIB))
    bench.device.lost = True
    with pytest.raises(RuntimeError, match="illegal memory access"):
        bench.probe(64)


def test_on_a_device_that_cannot_measure_batches_grow_until_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(SimulatedDevice(4 * GIB))
    measure = bench.device.measure

    @contextmanager
    def blind(outside_torch: bool) -> Iterator[Peak]:
        with measure(outside_torch):
            yield Peak()

    monkeypatch.setattr(bench.device, "measure", blind)
    assert bench.probe(8) == [1, 2, 4, 8]
    assert bench.cost.predict(8, 0) == 0


# --- what is remembered -----------------------------------------------------------------------------------------------


@given(histories, st.integers(0, 1 << 45), st.integers(1, 600))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cost_model_comes_back_as_it_was_saved(
    tmp_path: Path, history: list[tuple[bool, int, int, int]], fixed_bytes: int, batch: int
) -> None:
    cost = learned(history)
    CalibrationFile(tmp_path).save({"key": saved(cost, fixed_bytes, batch)})
    file = CalibrationFile(tmp_path)
    assert file.note is None
    found = file.find("key")
    assert found is not None
    assert (found.fixed_bytes, found.batch) == (fixed_bytes, batch)
    back = restored(found)
    assert (back.rows, back.failures, back.evidence) == (cost.rows, cost.failures, cost.evidence)
    assert saved(back, fixed_bytes, batch) == found
    assert [back.predict(count, length) for count, length in ((1, 0), (7, 50), (300, 99_999))] == [
        cost.predict(count, length) for count, length in ((1, 0), (7, 50), (300, 99_999))
    ]


def test_what_comes_back_goes_on_learning() -> None:
    back = restored(entry(1000))
    back.observe(8, 10, 5000)
    assert back.expect(8, 10) == 5000
    assert restored(entry(1000)).expect(8, 10) == 2000, "and shares nothing with another"


def test_saving_keeps_what_is_remembered_of_others(tmp_path: Path) -> None:
    CalibrationFile(tmp_path).save({"a": entry(1), "b": entry(2)})
    CalibrationFile(tmp_path).save({"b": entry(3), "c": entry(4)})
    file = CalibrationFile(tmp_path)
    assert [file.find(key) for key in "abcd"] == [entry(1), entry(3), entry(4), None]


def test_the_directory_is_made_when_there_is_something_to_save(tmp_path: Path) -> None:
    file = CalibrationFile(tmp_path / "state" / "deeper")
    assert file.note is None
    assert not (tmp_path / "state").exists()
    file.save({"a": entry()})
    assert CalibrationFile(tmp_path / "state" / "deeper").find("a") == entry()


# --- a file that cannot be used ---------------------------------------------------------------------------------------

GOOD = '{"version":1,"models":{"a":%s}}'
MODEL = '{"fixed_bytes":1,"batch":1,"evidence":1,"cells":[[0,1,5,0]],"failures":[[0,1,5]]}'
DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "cut off": (GOOD % MODEL).encode()[:60],
    "another thing after it": (GOOD % MODEL).encode() + b"}",
    "no object": b"[1, 2]",
    "no version": b'{"models":{}}',
    "no models": b'{"version":1}',
    "not UTF-8": b'{"version":1,"models":{"\xff":1}}',
    "zeros": bytes(100),
    "nested without end": b'{"version":' + b"[" * 100_000,
    "models of a wrong type": b'{"version":1,"models":[]}',
    "a field of a wrong type": (GOOD % MODEL.replace('"batch":1', '"batch":"1"')).encode(),
    "a field missing": (GOOD % MODEL.replace('"batch":1,', "")).encode(),
    "a cell too short": (GOOD % MODEL.replace("[[0,1,5,0]]", "[[0,1,5]]")).encode(),
    "a batch of nothing": (GOOD % MODEL.replace("[[0,1,5,0]]", "[[0,0,5,0]]")).encode(),
    "a negative peak": (GOOD % MODEL.replace("[[0,1,5,0]]", "[[0,1,-5,0]]")).encode(),
    "a failure of nothing": (GOOD % MODEL.replace("[[0,1,5]]", "[[0,0,5]]")).encode(),
    "a start batch of nothing": (GOOD % MODEL.replace('"batch":1', '"batch":0')).encode(),
    "a number too large": (GOOD % MODEL.replace('"fixed_bytes":1', '"fixed_bytes":1e999')).encode(),
}


def test_the_undamaged_file_is_read(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(GOOD % MODEL)
    assert CalibrationFile(tmp_path).find("a") is not None


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_not_used_which_a_note_says_and_the_next_save_mends(tmp_path: Path, damage: str) -> None:
    (tmp_path / FILE_NAME).write_bytes(DAMAGED[damage])
    file = CalibrationFile(tmp_path)
    assert file.find("a") is None
    assert file.note is not None
    assert str(tmp_path / FILE_NAME) in file.note
    assert "measured anew" in file.note
    assert "\n" not in file.note
    file.save({"a": entry()})
    again = CalibrationFile(tmp_path)
    assert (again.note, again.find("a")) == (None, entry())


@given(st.binary(max_size=8), st.integers(0, 200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_the_file_the_start_goes_on(tmp_path: Path, junk: bytes, at: int) -> None:
    good = (GOOD % MODEL).encode()
    (tmp_path / FILE_NAME).write_bytes(good[:at] + junk + good[at + len(junk) :])
    file = CalibrationFile(tmp_path)
    found = file.find("a")
    assert found is None or restored(found).predict(3, 50) is not None or not found.cells


@pytest.mark.parametrize("version", ["0", "2", '"1"', "null", "[1]"])
def test_a_file_of_another_version_is_not_used_and_not_called_damaged(tmp_path: Path, version: str) -> None:
    (tmp_path / FILE_NAME).write_text(f'{{"version": {version}, "costs": "in another form"}}')
    file = CalibrationFile(tmp_path)
    assert file.find("a") is None
    assert file.note is not None
    assert "of another version" in file.note
    file.save({"a": entry()})
    assert CalibrationFile(tmp_path).find("a") == entry()


def test_a_file_that_cannot_be_opened_is_noted(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    file = CalibrationFile(tmp_path)
    assert file.find("a") is None
    assert file.note is not None
    assert "Is a directory" in file.note


def test_a_file_that_may_not_be_read_is_noted_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CalibrationFile(tmp_path).save({"a": entry(1)})

    def refused(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refused)
        file = CalibrationFile(tmp_path)
    assert file.find("a") is None
    assert file.note is not None
    assert "Permission denied" in file.note
    file.save({"b": entry(2)})
    assert CalibrationFile(tmp_path).find("b") == entry(2)


@pytest.mark.parametrize("step", ["replace", "write"])
def test_a_crash_midway_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    CalibrationFile(tmp_path).save({"a": entry(1)})
    file = CalibrationFile(tmp_path)

    def fails(given: Path | int, *rest: Any) -> None:
        if isinstance(given, int):
            os.close(given)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if step == "replace":
            patch.setattr(Path, "replace", fails)
        else:
            patch.setattr(os, "fdopen", fails)
        with pytest.raises(OSError, match="No space left"):
            file.save({"a": entry(2)})
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert CalibrationFile(tmp_path).find("a") == entry(1)
    file.save({"a": entry(3)})
    assert CalibrationFile(tmp_path).find("a") == entry(3)


# --- what the costs hold for ------------------------------------------------------------------------------------------


def key(monkeypatch: pytest.MonkeyPatch, **change: str) -> str:
    device = SimulatedDevice(GIB)
    device.label = change.pop("device", device.label)
    library = change.pop("torch", None)
    info = msgspec.structs.replace(INFO, **{name: change[name] for name in change if name != "precision"})
    model = SimulatedModel(info, COST, device, precision=change.get("precision", "float16"))
    with monkeypatch.context() as patch:
        if library is not None:
            patch.setattr(calibration, "version", lambda name: library if name == "torch" else "4")
        return key_of(model, device)


def test_costs_hold_for_one_model_precision_device_and_set_of_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        key(monkeypatch),
        key(monkeypatch, role="text"),
        key(monkeypatch, name="siglip"),
        key(monkeypatch, revision="abd"),
        key(monkeypatch, precision="float32"),
        key(monkeypatch, device="NVIDIA H100 80GB HBM3"),
        key(monkeypatch, torch="9.9.9"),
    ]
    assert len(set(keys)) == len(keys)
    assert key(monkeypatch) == keys[0], "and are found again for the same"
