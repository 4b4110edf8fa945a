"""What killed other systems, on simulated cards in virtual time: every item comes out, and no out of memory escapes.

The engine is the real one; `benches.sim_engine` puts it between simulated decoders and a simulated device. Times and
memory of the models are made up here: large enough that the cards are tight.
"""

import gc
import random
from collections import Counter
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType, ModuleType
from typing import Any

import pytest

from benches.sim_engine import Outcome, SimulatedRun
from benches.sim_workload import LARGE_FRAME, VOICES, Video, archive
from engine.config import Config, DeviceOptions, EngineOptions
from engine.simulated_device import (
    BLOCK_BYTES,
    POISONED,
    Cost,
    Fault,
    SimulatedClock,
    SimulatedDevice,
    out_of_memory,
)

GIB = 1024**3
MIB = 1024**2


def cost(weights: int, batch: int, item: int, batch_ms: float = 10, item_ms: float = 2, **more: Any) -> Cost:
    """MiB and milliseconds."""
    return Cost(weights * MIB, batch * MIB, item * MIB, batch_ms / 1000, item_ms / 1000, **more)


def card(total_gb: float, **more: Any) -> Callable[[SimulatedClock], SimulatedDevice]:
    def made(clock: SimulatedClock) -> SimulatedDevice:
        return SimulatedDevice(round(total_gb * GIB), context_bytes=400 * MIB, fragmentation=0.1, **more)

    return made


def speech(weights: int, batch: int = 100, item: int = 300, item_ms: float = 100) -> Cost:
    return cost(weights, batch, item, batch_ms=200, item_ms=item_ms, outside_torch=True, max_batch=32)


# Together 4 GB; Whisper's memory is not torch's.
SMALL = {
    "image": cost(900, 50, 8, item_ms=8),
    "speech": speech(1600),
    "text": cost(1000, 50, 25),
    "voice": cost(100, 20, 12),
}
# Whisper 3 GB, ECAPA 1 GB, text embedder 4 GB, frame embedder 3 GB.
LARGE = {
    "image": cost(3072, 100, 20, item_ms=8),
    "speech": speech(3072),
    "text": cost(4096, 100, 40),
    "voice": cost(1024, 50, 15),
}


def expected(videos: Sequence[Video]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in videos:
        total.update(each.points)
    return total


def finish(run: SimulatedRun, videos: Sequence[Video]) -> Outcome:
    """Run to the end: all points, no failure, and the card and the budget never exceeded."""
    outcome = run.run()
    assert outcome.points == expected(videos)
    assert outcome.failures == []
    assert outcome.highest_bytes <= run.device.total_bytes
    assert outcome.highest_share <= 1.0
    assert run.engine.is_idle()
    return outcome


# --- 4 GB -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calibrate_seconds", [0.0, 10.0])
def test_4_gb_the_batch_size_is_found_from_one_far_too_large(calibrate_seconds: float) -> None:
    videos = [Video("clip", frames=150)]
    config = Config(engine=EngineOptions(image_batch=512), device=DeviceOptions(calibrate_seconds=calibrate_seconds))
    run = SimulatedRun(videos, card(4), {"image": cost(1000, 100, 150)}, config=config)
    finish(run, videos)
    assert run.meter.oom_events == 0
    assert run.meter.largest == {"image": 16}, "16 x 150 MB and the weights fit into 4 GB, 32 do not"


def test_4_gb_models_that_do_not_fit_together_take_turns() -> None:
    """Whisper and ECAPA, over three hours of sound."""
    videos = [Video("track", 0, (0, 1) * 180)]
    costs = {"speech": speech(2600, item=250), "voice": cost(1400, 50, 12), "text": cost(300, 20, 25)}
    run = SimulatedRun(videos, card(4), costs)
    outcome = finish(run, videos)
    assert outcome.swaps >= 4
    assert run.meter.oom_events == 0
    assert run.meter.swap_seconds < 0.15 * outcome.seconds


def test_4_gb_all_four_models() -> None:
    videos = archive(12, (5, 20), seed=4)
    run = SimulatedRun(videos, card(4), SMALL)
    outcome = finish(run, videos)
    assert outcome.swaps >= 2
    assert run.meter.oom_events == 0
    assert run.meter.swap_seconds < 0.15 * outcome.seconds


def test_with_little_host_memory_the_device_does_not_stand_still_while_a_decoder_waits_for_credit() -> None:
    """A decoder without credit for a window of 960 kB has not used up nine tenths of its share of 5 MB."""
    moving = {"host_seconds": 2.0, "disk_seconds": 2.0}  # so dear that models wait for company before they come in
    costs = {
        "image": cost(900, 50, 8, item_ms=8, **moving),
        "speech": cost(1200, 100, 200, 200, 70, outside_torch=True, **moving),
        "text": cost(1700, 50, 25, **moving),
        "voice": cost(1200, 20, 12, **moving),
    }
    videos = [Video("track", 0, (0,) * 30)]
    run = SimulatedRun(videos, card(3), costs, config=Config(engine=EngineOptions(host_mb=16)), decoders=3)
    outcome = finish(run, videos)
    assert outcome.held_seconds < 0.05 * outcome.seconds


# --- 16 GB ------------------------------------------------------------------------------------------------------------


def test_16_gb_a_sound_track_of_45_minutes_loses_none_of_its_1808_voice_windows() -> None:
    """90 windows of 30 s: 41 with one turn throughout, 49 with several."""
    track = Video("lecture", frames=2700, patterns=(0,) * 41 + (1,) * 49)
    assert VOICES == (19, 21)
    run = SimulatedRun([track], card(16), LARGE)
    outcome = finish(run, [track])
    assert outcome.points["voices"] == 1808
    assert outcome.swaps == 0, "11 GB of weights stay on the card together"
    audio = next(result for result in outcome.results.values() if result.voiced_seconds)
    assert audio.voice_seconds == pytest.approx(audio.voiced_seconds, rel=1e-6)
    assert audio.text_seconds == pytest.approx(audio.speech_seconds, rel=1e-6)


def test_16_gb_200_videos_in_a_row_leave_memory_flat() -> None:
    used: list[tuple[int, int]] = []  # (videos done, bytes on the device) between batches

    def look(run: SimulatedRun) -> None:
        used.append((len(run.outcome.results) // 2, run.device.read().used_bytes))  # two tasks a video

    def in_a_row(count: int) -> SimulatedRun:
        videos = [Video(f"video {number}", 40, (0, 1)) for number in range(count)]
        config = Config(engine=EngineOptions(host_mb=16))  # two or three videos are under way
        run = SimulatedRun(videos, card(16), LARGE, config=config, decoders=2)
        run.after_step = look
        finish(run, videos)
        return run

    after_10 = reachable(in_a_row(10).engine)
    used.clear()
    after_200 = reachable(in_a_row(200).engine)
    early = max(bytes_ for done, bytes_ in used if 10 <= done < 20)
    late = max(bytes_ for done, bytes_ in used if done >= 20)
    assert late - early <= BLOCK_BYTES
    assert after_200 - after_10 < 100, "objects that the engine holds on to"


def reachable(root: object) -> int:
    """Objects that hang on this one, without code."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        each = stack.pop()
        if id(each) in seen or isinstance(each, type | ModuleType | FunctionType | MethodType):
            continue
        seen.add(id(each))
        stack += gc.get_referents(each)
    return len(seen)


# --- 12 GB ------------------------------------------------------------------------------------------------------------


def test_12_gb_mixed_lengths_beside_another_process() -> None:
    """20 minutes to 3 hours, scaled down to an eighth; the other takes or gives back 2 GB every 0.5 to 8 s."""
    chance, until, held, takings = random.Random(12), 0.0, 0, 0

    def made(clock: SimulatedClock) -> SimulatedDevice:
        def others() -> int:
            nonlocal until, held, takings
            if clock() >= until:
                until, held = clock() + chance.uniform(0.5, 8), 0 if held else 2 * GIB
                takings += held > 0
            return held

        return SimulatedDevice(12 * GIB, context_bytes=400 * MIB, fragmentation=0.1, others_bytes=others)

    videos = archive(8, (20 / 8, 180 / 8), seed=12)
    costs = SMALL | {"speech": speech(3000, item=500), "image": cost(2500, 100, 60, item_ms=8)}
    run = SimulatedRun(videos, made, costs)
    finish(run, videos)
    assert takings >= 5


def test_12_gb_what_another_process_holds_for_half_a_minute_is_waited_for() -> None:
    """Even where nothing of a model was measured, so that nobody can say how much is missing. Parking all others does
    not make enough room.
    """

    def made(clock: SimulatedClock) -> SimulatedDevice:
        def others() -> int:
            return 12 * GIB - 4350 * MIB if 5 <= clock() < 35 else 0  # it leaves 350: for frames, not for a window

        return SimulatedDevice(12 * GIB, context_bytes=400 * MIB, fragmentation=0.1, others_bytes=others)

    videos = [Video("silent", 2000), Video("sound", 0, (0, 1) * 5)]
    config = Config(device=DeviceOptions(calibrate_seconds=0.0))
    run = SimulatedRun(videos, made, SMALL | {"speech": speech(1600, item=3000)}, config=config, decoders=1)
    finish(run, videos)
    assert run.clock() > 35


# --- wrong costs, faults ----------------------------------------------------------------------------------------------


def test_models_that_truly_take_three_times_what_was_measured() -> None:
    videos = archive(4, (3, 8), seed=3)
    run = SimulatedRun(videos, card(8), SMALL, truth=dict.fromkeys(SMALL, 3.0))
    finish(run, videos)
    assert 0 < run.meter.oom_events <= 12


def test_an_item_ten_times_the_others() -> None:
    videos = [Video("one", 300, (0,) * 10, large=150), Video("two", 300, (0,) * 10)]
    costs = SMALL | {"image": cost(900, 50, 200)}
    lengths = {"image": (224, lambda item: item.shape[0])}
    run = SimulatedRun(videos, card(5), costs, lengths=lengths)
    finish(run, videos)
    assert run.meter.oom_events <= 1


@pytest.mark.parametrize("seed", [1, 2])
def test_a_thousand_failures_at_random_places(seed: int) -> None:
    chance, injected = random.Random(seed), 0

    def fault(role: str, batch: Sequence[Any]) -> Exception | None:
        nonlocal injected
        if injected == 1000 or chance.random() >= 0.25:
            return None
        injected += 1
        return out_of_memory(len(batch) * MIB, outside_torch=role == "speech")

    faults: dict[str, Fault] = dict.fromkeys(SMALL, fault)
    videos = archive(5, (10, 20), seed)
    run = SimulatedRun(videos, card(8), SMALL, faults=faults)
    finish(run, videos)
    assert injected == 1000


@pytest.mark.parametrize(("total_gb", "item_mb"), [(5, 60), (7, 15)])
def test_a_device_that_never_frees_gets_a_fresh_process(total_gb: float, item_mb: int) -> None:
    """Nothing comes back of what the probes of a batch far too large took; a fresh process knows and need not probe."""
    videos = [Video("silent", 3000)]
    for number in range(3):
        videos += [Video(f"sound {number}", 0, (0, 1) * 10), Video(f"silent {number}", 300)]
    config = Config(engine=EngineOptions(image_batch=512))
    costs = SMALL | {"image": cost(900, 50, item_mb, item_ms=8)}
    run = SimulatedRun(videos, card(total_gb, never_frees=True), costs, config=config, decoders=1)
    outcome = finish(run, videos)
    assert outcome.restarts == {"memory-stuck": 1}


def test_an_item_that_poisons_the_context_fails_alone_by_name() -> None:
    videos = [Video("good", 100, (0, 1)), Video("bad", 100, (0, 1), large=50), Video("other", 100, (0, 1))]

    def fault(role: str, batch: Sequence[Any]) -> Exception | None:
        return RuntimeError(POISONED) if any(item.shape == LARGE_FRAME.shape for item in batch) else None

    run = SimulatedRun(videos, card(8), SMALL, faults={"image": fault})
    outcome = run.run()
    (failure,) = outcome.failures
    assert (failure.kind, failure.start_seconds, failure.code) == ("image", 50.0, "device-lost")
    assert "illegal memory access" in failure.message
    assert outcome.points == expected(videos) - Counter({"frames": 1})
    assert outcome.restarts == {"device-lost": 2}, "once in company, once alone"
