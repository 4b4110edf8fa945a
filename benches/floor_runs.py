"""Runs the two halves of the floor, each in a process of its own, and puts what they say together.

Halves(settings, media, directory).record() ── decode-only, once, untimed ─► frames.npy, sound.npy, index.json
                                  .measure() ── decode-only, then model-only with one thread and with all ─► Floor
                                             ── decode-only on every core at once ─► what busy neighbours cost
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benches.floor import Floor, Task
from benches.floor_work import Answer, Job, Pass
from engine.worker import THREADS


@dataclass(frozen=True)
class Measured:
    """One measurement of both halves."""

    decode: Answer
    models: Answer
    decodes: tuple[Answer, ...] = ()  # all of them at once, one for each core; none: there is one core

    @property
    def all_cores_cpu_seconds(self) -> float:
        """What the floor takes where every core is busy with the same half of it: a schedule keeps them all busy."""
        decodes = [each.passes[0].time.cpu_seconds for each in self.decodes or (self.decode,)]
        widest = max(self.models.passes, key=lambda each: each.threads)
        return sum(decodes) / len(decodes) + widest.time.cpu_seconds

    @property
    def least(self) -> Pass:
        """The pass over the models that took least processor time."""
        return min(self.models.passes, key=lambda each: each.time.cpu_seconds)

    @property
    def fastest(self) -> Pass:
        """… least wall time."""
        return min(self.models.passes, key=alone_seconds)

    def floor(self, cores: int) -> Floor:
        """The bounds that follow from it."""
        tails = {"frames": _item_seconds(self.fastest, "image"), "sound": _sound_tail_seconds(self.fastest)}
        tasks = tuple(Task(part.time.cpu_seconds, tails[part.name]) for part in self.decode.passes[0].parts)
        return Floor(tasks, self.least.time.cpu_seconds, alone_seconds(self.fastest), cores)


def alone_seconds(models: Pass) -> float:
    """Wall time of a pass where nobody else wants a core: with one thread its processor time, for it reads no disk."""
    return models.time.cpu_seconds if models.threads == 1 else models.time.wall_seconds


def _item_seconds(models: Pass, role: str) -> float:
    """Wall time of one item in a full batch: a lower bound of what a lone one takes."""
    found = [part for part in models.parts if part.name == role and part.items]
    return sum(part.time.wall_seconds / part.items for part in found)


def _sound_tail_seconds(models: Pass) -> float:
    """The last window of a track is transcribed, and then a text is embedded; or a voice."""
    return max(_item_seconds(models, "speech") + _item_seconds(models, "text"), _item_seconds(models, "voice"))


@dataclass(frozen=True)
class Halves:
    """Decode-only and model-only for one list of media."""

    settings: Sequence[str]
    media: Sequence[Path]
    directory: Path  # where the work is written
    warm_up: Path | None = None  # a medium that is decoded before the clock starts

    def record(self) -> None:
        """Write the work. Raises subprocess.CalledProcessError when a half fails; its words are on standard error."""
        self.decode(record=True)

    def decode(self, record: bool = False) -> Answer:
        """Decode-only; only what is not recorded is worth timing."""
        job = Job(
            tuple(self.settings),
            tuple(map(os.fspath, self.media)),
            warm_up=None if self.warm_up is None else os.fspath(self.warm_up),
            record=os.fspath(self.directory) if record else None,
        )
        return run_half("benches.floor_decode", job)

    def models(self, batches: Mapping[str, int], threads: Sequence[int]) -> Answer:
        """Model-only, over what was recorded."""
        job = Job(tuple(self.settings), record=os.fspath(self.directory), batches=dict(batches), threads=tuple(threads))
        return run_half("benches.floor_models", job)

    def measure(self, batches: Mapping[str, int], cores: int) -> Measured:
        """Both, the models with one thread and with one for each core; then decoding on each core."""
        if cores == 1:
            return Measured(self.decode(), self.models(batches, (1,)))
        return Measured(self.decode(), self.models(batches, (1, cores)), self.decode_on_each(cores))

    def decode_on_each(self, cores: int) -> tuple[Answer, ...]:
        """Decode-only in as many processes at once, all of it in each of them."""
        with ThreadPoolExecutor(cores) as pool:
            return tuple(pool.map(lambda _: self.decode(), range(cores)))


def run_half(module: str, job: Job) -> Answer:
    """Raises subprocess.CalledProcessError when it fails; its words are on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=msgspec.json.encode(job),
        stdout=subprocess.PIPE,
        check=True,
        cwd=Path(__file__).parents[1],
        env={**THREADS, **os.environ},  # as for every child of the engine
    )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Answer)
