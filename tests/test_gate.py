"""The engine around a tight or failing device: who may run, what is let in, what is said when it can go on no more."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from engine.core import Engine, EngineLostError
from engine.jobs import ItemId
from engine.pressure import Tier
from engine.runner import Failure
from engine.simulated_device import POISONED, Cost, SimulatedClock, SimulatedDevice, SimulatedModel
from tests.fakes import FakeModel
from tests.runners import GIB, engine_for, runner_for
from transport.codec import encode, spec_of
from transport.messages import Frame, Points, TaskEnd, TaskKey, TaskResult, TaskStart, ToConsumer

KEY = TaskKey(1, 0)
MIB = 1024**2
COSTS = {"image": (800, False), "speech": (1200, True), "text": (300, False), "voice": (100, False)}


class Bench:
    """An engine on a simulated device; `frame` and `end` are what a decoder would send."""

    def __init__(self, total_gb: float, here: Sequence[str], **more: Any) -> None:
        self.clock = SimulatedClock()
        self.others_bytes = 0
        self.device = SimulatedDevice(round(total_gb * GIB), others_bytes=lambda: self.others_bytes)
        self.models: dict[str, SimulatedModel] = {}
        for role in sorted(COSTS, key=lambda role: role in here):
            mib, outside = COSTS[role]
            cost = Cost(mib * MIB, 10 * MIB, 5 * MIB, batch_seconds=0.1, item_seconds=0.0, outside_torch=outside)
            inner = FakeModel(role)
            self.models[role] = SimulatedModel(inner.info, cost, self.device, self.clock.sleep, inner=inner)
            if role not in here:
                self.models[role].park(keep=False)
        runner = runner_for(self.models, self.device, clock=self.clock, sleep=self.clock.sleep)
        runner.turns.start(sorted(set(COSTS) - set(here)))
        runner.budget.see_overhead(self.device.read().used_bytes, runner.turns.residency.resident)
        self.engine: Engine = engine_for(runner, **more)
        self.items = 0

    def start(self) -> None:
        message = TaskStart(key=KEY, video_id="v", shown_path="v.mp4")
        self.engine.receive(b"d", message, None, len(encode(message)), self.clock.seconds)

    def frame(self, at: float, value: int = 0) -> None:
        pixels = np.full((2, 2, 3), value, np.uint8)
        message = Frame(key=KEY, start_seconds=at, end_seconds=at + 1, array=spec_of(pixels))
        self.engine.receive(b"d", message, memoryview(pixels.tobytes()), 500, self.clock.seconds)
        self.items += 1

    def end(self) -> None:
        message = TaskEnd(key=KEY, items=self.items, gaps=())
        self.engine.receive(b"d", message, None, len(encode(message)), self.clock.seconds)

    def run(self) -> tuple[list[Points], list[TaskResult]]:
        import msgspec

        decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToConsumer)
        while self.engine.step(self.clock.seconds):
            self.clock.sleep(0.01)
        messages = []
        while (outgoing := self.engine.outbox.take()) is not None:
            messages.append(decoder.decode(outgoing.header))
        return [m for m in messages if isinstance(m, Points)], [m for m in messages if isinstance(m, TaskResult)]


def test_a_model_off_the_device_comes_in_when_there_is_work_for_nobody_else() -> None:
    bench = Bench(2.0, here=("speech",))
    bench.start()
    for at in range(20):
        bench.frame(float(at))
    bench.end()
    points, (result,) = bench.run()
    assert sum(len(message.ids) for message in points) == 20
    assert not result.failures
    assert "image" in bench.engine.runner.turns.residency.resident
    assert "speech" not in bench.engine.runner.turns.residency.resident


def test_a_few_items_do_not_bring_a_model_in_while_more_may_come() -> None:
    bench = Bench(2.0, here=("speech",))
    residency = bench.engine.runner.turns.residency
    residency.worked("image", 1, 0.1)
    residency._price_seconds["image"] = 1.0
    bench.start()
    bench.frame(0.0)
    bench.clock.sleep(1.0)
    assert not bench.engine.step(bench.clock.seconds), "one frame is not worth a second of changing models"
    bench.clock.sleep(60.0)
    assert bench.engine.step(bench.clock.seconds), "but no item waits longer than max_turn_ms for its model"


def test_a_decoder_without_credit_brings_the_model_in() -> None:
    bench = Bench(2.0, here=("speech",))
    residency = bench.engine.runner.turns.residency
    residency.worked("image", 1, 0.1)
    residency._price_seconds["image"] = 1.0
    bench.start()
    bench.frame(0.0)
    bench.clock.sleep(1.0)
    bench.engine.gate.receive(b"d", 250 * MIB)
    assert bench.engine.step(bench.clock.seconds)


def test_a_model_that_fits_beside_the_others_is_not_held_back() -> None:
    bench = Bench(3.0, here=("speech",))
    residency = bench.engine.runner.turns.residency
    residency._price_seconds["image"] = 100.0
    bench.start()
    bench.frame(0.0)
    bench.clock.sleep(1.0)
    assert bench.engine.step(bench.clock.seconds)
    assert residency.resident == {"speech", "image"}


def test_when_the_device_is_nearly_full_nothing_more_is_let_in_until_it_is_worked_off() -> None:
    bench = Bench(2.0, here=("image", "voice"))
    bench.start()
    for at in range(3):
        bench.frame(float(at))
        bench.engine.scheduler.append("voice", None, 0, 0.0)  # type: ignore[arg-type]  # stands for waiting work
    bench.others_bytes = 1100 * MIB  # of 2048: what is left to us is nearly all in use
    bench.clock.sleep(0.3)
    assert bench.engine.is_accepting
    assert bench.engine.step(bench.clock.seconds)
    assert bench.engine.gate.pressure.tier is Tier.STOP
    assert bench.engine.gate.pressure.counters.stops == 1
    assert not bench.engine.is_accepting
    assert bench.engine.scheduler.ended, "what is here goes in part-filled batches"


def test_idle_models_are_parked_when_the_device_is_nearly_full() -> None:
    bench = Bench(2.0, here=("image", "voice"))
    bench.start()
    bench.frame(0.0)
    bench.others_bytes = 1100 * MIB
    bench.clock.sleep(0.3)
    assert bench.engine.step(bench.clock.seconds)
    assert bench.engine.runner.turns.residency.resident == set()
    assert bench.engine.is_accepting, "with nothing left to work off, refusing would be for ever"


def lost_at(value: int) -> Any:
    def fault(role: str, batch: Sequence[Any]) -> Exception | None:
        return RuntimeError(POISONED) if any(int(item.flat[0]) == value for item in batch) else None

    return fault


def test_a_lost_device_ends_the_engine_and_names_the_items_that_were_running() -> None:
    bench = Bench(4.0, here=tuple(COSTS))
    bench.engine.runner.budget.costs["image"].observe(4, 0, 30 * MIB)
    bench.models["image"].fault = lost_at(7)
    bench.start()
    bench.frame(0.0)
    bench.frame(1.0, value=7)
    bench.end()
    with pytest.raises(EngineLostError, match="illegal memory access") as caught:
        bench.run()
    assert caught.value.code == "device-lost"
    assert caught.value.suspects == (ItemId("v", "image", 0.0, 1.0), ItemId("v", "image", 1.0, 2.0))


def test_suspects_run_alone_and_the_next_loss_names_one() -> None:
    suspects = (ItemId("v", "image", 0.0, 1.0), ItemId("v", "image", 1.0, 2.0))
    bench = Bench(4.0, here=tuple(COSTS), suspects=suspects)
    bench.engine.runner.budget.costs["image"].observe(4, 0, 30 * MIB)
    bench.models["image"].fault = lost_at(7)
    bench.start()
    bench.frame(0.0)
    bench.frame(1.0, value=7)
    bench.frame(2.0)
    bench.end()
    with pytest.raises(EngineLostError) as caught:
        bench.run()
    assert caught.value.suspects == suspects[1:]


def test_condemned_items_fail_by_name_without_being_run() -> None:
    condemned = {ItemId("v", "image", 1.0, 2.0): Failure("device-lost", "it poisoned the device")}
    bench = Bench(4.0, here=tuple(COSTS), condemned=condemned)
    bench.models["image"].fault = lost_at(7)
    bench.start()
    bench.frame(0.0)
    bench.frame(1.0, value=7)
    bench.frame(2.0)
    bench.end()
    points, (result,) = bench.run()
    assert sum(len(message.ids) for message in points) == 2
    assert [(f.start_seconds, f.code, f.message) for f in result.failures] == [
        (1.0, "device-lost", "it poisoned the device")
    ]
    assert bench.engine.is_idle()
