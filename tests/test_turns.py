"""Models that do not fit together take turns on the device, with their work kept whole."""

from collections.abc import Sequence
from typing import Any

import pytest

from engine.faults import DeviceLostError, RecycleError
from engine.scheduler import Waiting
from engine.simulated_device import POISONED, Cost, SimulatedClock, SimulatedDevice, SimulatedModel
from engine.turns import ParkTimes, Turns
from tests.runners import GIB, runner_for
from transport.messages import ModelInfo

MIB = 1024**2
NOTHING = Waiting(0, 0, float("inf"))


def made(device: SimulatedDevice, clock: SimulatedClock, role: Any, weights_mib: int, **more: Any) -> SimulatedModel:
    info = ModelInfo(role=role, name=role, revision="0", dimension=4, untrained=True)
    cost = Cost(weights_mib * MIB, 10 * MIB, MIB, batch_seconds=0.1, item_seconds=0.0, **more)
    return SimulatedModel(info, cost, device, clock.sleep)


class Stage:
    """Three models on a device; who is there at the start is said by `here`."""

    def __init__(self, total_gb: float = 2.0, here: Sequence[str] = ("image", "text"), **more: Any) -> None:
        self.clock = SimulatedClock()
        self.device = SimulatedDevice(round(total_gb * GIB))
        self.models: dict[str, SimulatedModel] = {}
        for role, mib in (("speech", 1200), ("image", 800), ("text", 300)):
            self.models[role] = made(self.device, self.clock, role, mib, outside_torch=role == "speech", **more)
            if role not in here:
                self.models[role].park(keep=False)
        self.runner = runner_for(self.models, self.device, clock=self.clock, sleep=self.clock.sleep)
        self.runner.turns.start(sorted(set(self.models) - set(here)))
        self.turns: Turns = self.runner.turns

    def waiting(self, **items: int) -> dict[str, Waiting]:
        return {role: Waiting(items.get(role, 0), 0, 0.0) if items.get(role) else NOTHING for role in self.models}


def test_who_comes_in_takes_off_only_whom_it_must() -> None:
    stage = Stage()
    stage.turns.bring_in("speech", 50 * MIB, stage.waiting(speech=10))
    assert stage.turns.residency.resident == {"speech", "text"}
    assert stage.models["image"].moves[-1] == "host"
    assert stage.device.read().used_bytes == 1500 * MIB


def test_of_those_that_are_enough_the_one_with_least_work_goes() -> None:
    stage = Stage(total_gb=2.6, here=("image", "text"))
    stage.turns.residency.worked("text", 1, 1.0)
    stage.turns.residency.worked("image", 1, 1.0)
    stage.turns.bring_in("speech", 0, stage.waiting(speech=10, image=9, text=1))
    assert stage.turns.residency.resident == {"speech", "image"}


def test_a_model_that_is_there_costs_nothing() -> None:
    stage = Stage()
    stage.turns.bring_in("image", 0, stage.waiting())
    assert stage.clock.seconds == 0.0
    assert stage.turns.residency.changes == 0


def test_both_ways_of_parking_are_measured_and_the_faster_is_kept() -> None:
    stage = Stage(host_seconds=0.5, disk_seconds=2.0)
    for _ in range(4):
        stage.turns.bring_in("speech", 0, stage.waiting(speech=1))
        stage.turns.bring_in("image", 0, stage.waiting(image=1))
    assert stage.models["image"].moves == ["host", "disk", "host", "host"]
    assert stage.turns.park_seconds["image"] == {"host": 0.5, "disk": 2.0}


def test_a_disk_that_is_faster_than_host_memory_is_taken() -> None:
    times = ParkTimes({True: 3.0, False: 1.0})
    assert not times.keep("auto")
    assert times.keep("host")
    assert not ParkTimes().keep("disk")


def test_a_change_is_counted_with_its_price() -> None:
    stage = Stage(host_seconds=0.5)
    stage.turns.bring_in("speech", 0, stage.waiting(speech=1))
    assert stage.turns.residency.changes == 1
    assert stage.turns.residency.change_seconds == pytest.approx(2.0)  # it was not parked in host memory


def test_a_model_that_fits_beside_the_others_waits_for_nobody() -> None:
    stage = Stage(here=("image",))
    assert stage.runner.fits_beside("text")
    assert not stage.runner.fits_beside("speech")


def test_memory_that_is_not_given_back_asks_for_a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()

    def refuse(model: SimulatedModel, keep: bool) -> None:
        raise RuntimeError("CTranslate2 did not unload the speech model in 5.0 s: a batch is still running")

    monkeypatch.setattr(SimulatedModel, "park", refuse)
    with pytest.raises(RecycleError, match="the image model stays on the device"):
        stage.turns.bring_in("speech", 0, stage.waiting(speech=1))


def test_a_device_that_is_lost_while_parking_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()

    def lost(model: SimulatedModel, keep: bool) -> None:
        raise RuntimeError(POISONED)

    monkeypatch.setattr(SimulatedModel, "park", lost)
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        stage.turns.bring_in("speech", 0, stage.waiting(speech=1))


def test_when_another_process_holds_too_much_everybody_makes_room() -> None:
    held = 0
    stage = Stage(total_gb=2.6)
    stage.device._others_bytes = lambda: held
    held = 1200 * MIB
    stage.turns.bring_in("speech", 0, stage.waiting(speech=1, image=5, text=5))
    assert stage.turns.residency.resident == {"speech"}


def test_idle_models_leave_under_pressure() -> None:
    stage = Stage()
    assert stage.turns.park_idle(stage.waiting(image=3)) == ["text"]
    assert stage.turns.residency.resident == {"image"}
