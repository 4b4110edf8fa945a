"""What came before, on the same simulated card: no admission, no learning, out of memory kills the video.

All of them decode ahead as fast as the decoders can, into host memory without a limit, and load from disk. Torch's
allocator behaves as for the engine; nobody asks it to give its cache back.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benches.sim_card import CONTEXT_BYTES
from benches.sim_device import OOM_SECONDS
from benches.sim_workload import FRAME_DECODE_SECONDS, PHRASES, PROBE_LENGTHS, WINDOW_DECODE_SECONDS, Video
from engine.faults import is_out_of_memory
from engine.simulated_device import Cost, SimulatedClock, SimulatedDevice, SimulatedModel
from stages.base import ROLES, Role
from transport.messages import ModelInfo

VOICE_LENGTH = 48_000  # all windows are taken for 3 s
TEXT_LENGTH = round(sum(map(len, PHRASES)) / len(PHRASES))
WORKERS = 4
SIZES = {"image": 32, "speech": 8, "text": 64, "voice": 32}  # what a batch is where nobody says otherwise

DeviceFactory = Callable[[SimulatedClock], SimulatedDevice]


@dataclass(slots=True)
class Result:
    """What became of the work."""

    name: str
    videos: int = 0  # done
    items: int = 0  # … with all their items
    lost: int = 0  # items of videos that died
    oom_events: int = 0
    seconds: float = 0.0
    run_seconds: float = 0.0
    death: str = ""
    lost_by: dict[str, int] = field(default_factory=dict)  # videos, by the model that had no room

    @property
    def busy(self) -> float:
        """Time in models, of the time in which items waited: here all of it."""
        return self.run_seconds / self.seconds if self.seconds else 0.0

    def told(self) -> str:
        """How it died, in a few words."""
        lost = sum(self.lost_by.values())
        where = ", ".join(sorted(self.lost_by))
        return self.death or (f"{lost} videos out of memory in {where}" if lost else "")


def items_of(video: Video) -> dict[str, int]:
    """Items for each model."""
    windows = len(video.patterns)
    return {"image": video.frames, "speech": windows, "text": windows * len(PHRASES), "voice": video.voices}


def lengths_of(role: str) -> int:
    """Length of the items of a model."""
    return {"text": TEXT_LENGTH, "voice": VOICE_LENGTH}.get(role, 0)


class _Rig:
    """A card, a clock, and the rate at which videos become ready."""

    def __init__(self, name: str, device: DeviceFactory, costs: Mapping[str, Cost], decoders: int) -> None:
        self.clock = SimulatedClock()
        self.device = device(self.clock)
        self.costs = costs
        self.result = Result(name)
        self._decoders = decoders
        self._decoded_seconds = 0.0

    def load(self, role: str) -> SimulatedModel:
        """A model on the card. Raises out of memory."""
        info = ModelInfo(role=_role(role), name=role, revision="0", dimension=0, untrained=True)
        model = SimulatedModel(info, self.costs[role], self.device, self.clock.sleep, length=lambda item: int(item))
        model.probe_length = PROBE_LENGTHS[_role(role)]
        self.clock.sleep(self.costs[role].disk_seconds)
        return model

    def wait_for(self, video: Video) -> None:
        """Until the video is decoded."""
        seconds = video.frames * FRAME_DECODE_SECONDS + len(video.patterns) * WINDOW_DECODE_SECONDS
        self._decoded_seconds += seconds / self._decoders
        self.clock.seconds = max(self.clock.seconds, self._decoded_seconds)

    def run(self, model: SimulatedModel, count: int, size: int) -> None:
        """So many items in batches of one size. Raises out of memory."""
        role = model.info.role
        for batch in _batches(count, size):
            started = self.clock()
            model.run([lengths_of(role)] * batch)
            self.result.run_seconds += self.clock() - started

    def done(self, video: Video) -> None:
        """All of its items came out."""
        self.result.videos += 1
        self.result.items += sum(items_of(video).values())

    def lose(self, video: Video, role: str) -> None:
        """Out of memory: all results of the video are lost."""
        self.clock.sleep(OOM_SECONDS)
        self.result.oom_events += 1
        self.result.lost += sum(items_of(video).values())
        self.result.lost_by[role] = self.result.lost_by.get(role, 0) + 1

    def never_started(self, videos: Sequence[Video], error: Exception) -> Result:
        """The models did not even load."""
        if not is_out_of_memory(error):
            raise error
        self.result.oom_events += 1
        self.result.lost = sum(sum(items_of(video).values()) for video in videos)
        self.result.death = "out of memory while loading"
        return self.finish()

    def finish(self) -> Result:
        """The result, with the time it took."""
        self.result.seconds = self.clock()
        return self.result


def fixed_batch(
    size: int, videos: Sequence[Video], device: DeviceFactory, costs: Mapping[str, Cost], decoders: int
) -> Result:
    """Every model loaded at the start, and the same batch size for all."""
    rig = _Rig(f"fixed batch {size}", device, costs, decoders)
    try:
        models: dict[str, SimulatedModel] = {role: rig.load(role) for role in ROLES}
    except (RuntimeError, MemoryError) as error:
        return rig.never_started(videos, error)
    for video in videos:
        rig.wait_for(video)
        role = _first_failing(rig, {role: (models[role], count) for role, count in items_of(video).items()}, size)
        rig.done(video) if role is None else rig.lose(video, role)
    return rig.finish()


def sequential_stages(
    videos: Sequence[Video], device: DeviceFactory, costs: Mapping[str, Cost], decoders: int
) -> Result:
    """For each video: load a model, run all its items, unload it, next model."""
    rig = _Rig("stages in turn, per video", device, costs, decoders)
    for video in videos:
        rig.wait_for(video)
        failed = None
        for role, count in items_of(video).items():
            failed = failed or _one_stage(rig, role, count)
        rig.done(video) if failed is None else rig.lose(video, failed)
    return rig.finish()


def _one_stage(rig: _Rig, role: str, count: int) -> str | None:
    """The role when memory ran out."""
    try:
        model = rig.load(role)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return role
    failed = _first_failing(rig, {role: (model, count)}, SIZES[role])
    model.park(keep=False)
    return failed


def _first_failing(rig: _Rig, work: Mapping[str, tuple[SimulatedModel, int]], size: int) -> str | None:
    for role, (model, count) in work.items():
        try:
            rig.run(model, count, size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return role
    return None


def four_workers(videos: Sequence[Video], device: DeviceFactory, costs: Mapping[str, Cost], decoders: int) -> Result:
    """Four speech workers, each a process with its own context and its own Whisper, a quarter of the batch each, and
    their batches on the card at the same time; the other models once. The card shares its time among them.
    """
    rig = _Rig(f"{WORKERS} workers with a Whisper each", device, costs, decoders)
    try:
        models: dict[str, SimulatedModel] = {role: rig.load(role) for role in ROLES if role != "speech"}
        for worker in range(WORKERS):
            rig.load("speech")
            if worker:
                rig.device.allocate(CONTEXT_BYTES, outside_torch=True)
    except (RuntimeError, MemoryError) as error:
        return rig.never_started(videos, error)
    for first in range(0, len(videos), WORKERS):
        group = videos[first : first + WORKERS]
        for video in group:
            rig.wait_for(video)
        heard = _transcribe_together(rig, group)
        for video in heard:
            work = {role: (models[role], count) for role, count in items_of(video).items() if role in models}
            failed = next((role for role in work if _first_failing(rig, {role: work[role]}, SIZES[role])), None)
            rig.done(video) if failed is None else rig.lose(video, failed)
    return rig.finish()


def _transcribe_together(rig: _Rig, group: Sequence[Video]) -> list[Video]:
    """The videos whose worker had room all the time."""
    cost, size = rig.costs["speech"], SIZES["speech"] // WORKERS
    left = {video.name: list(_batches(len(video.patterns), size)) for video in group}
    alive = list(group)
    while any(left[video.name] for video in alive):
        taken: list[tuple[int, int]] = []
        for video in [each for each in alive if left[each.name]]:
            count = left[video.name].pop()
            try:
                taken.append((rig.device.allocate(cost.batch_bytes + cost.item_bytes * count, True), count))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                alive.remove(video)
                rig.lose(video, "speech")
        for bytes_, count in taken:
            seconds = cost.batch_seconds + cost.item_seconds * count
            rig.clock.sleep(seconds)
            rig.result.run_seconds += seconds
            rig.device.free(bytes_, outside_torch=True)
    return alive


def _batches(count: int, size: int) -> Iterator[int]:
    for first in range(0, count, size):
        yield min(size, count - first)


def _role(role: Any) -> Role:
    named: Role = role
    return named
