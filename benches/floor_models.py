"""Model-only: what the models do with the work that a decode-only run recorded, in one process, all of it in memory.

`benches.floor_runs` starts it, with a `Job` as JSON on standard input; an `Answer` comes back on standard output. Full
batches, one model after the other: nothing waits for a decoder, for company, or for the store. One pass for each number
of threads that is asked for, each with a part of every batch: with one least processor time is spent, with all of them
least wall time.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benches.floor_work import Instant, Part, Pass, Work, answer, read_job
from engine.config import Config, load_config
from engine.heap import keep_freed_memory, keep_heap_whole, share_one_heap
from stages.base import Model, Role, SpeechInput, Transcript
from stages.lanes import Lanes
from stages.options import VoiceOptions
from stages.registry import configured, load
from stages.windows import voice_windows

SAMPLE_RATE = 16_000


class Runs:
    """Each model over its share of the work."""

    def __init__(self, models: Mapping[Role, Model], config: Config, batches: Mapping[str, int]) -> None:
        self._models = models
        self._voice = config.voice
        self._sizes = {role: batches.get(role, getattr(config.engine, f"{role}_batch")) for role in models}

    def all(self, work: Work, most_batches: int | None = None) -> list[Part]:
        """most_batches: of each model; None: the whole work."""
        parts: list[Part] = []
        if "image" in self._models:
            parts.append(self._run("image", [list(work.frames)], most_batches)[0])
        if "speech" in self._models:
            windows = [SpeechInput(work.pcm(each), None) for each in work.index.windows]
            part, transcripts = self._run("speech", [windows], most_batches)
            parts.append(part)
            if "text" in self._models:
                parts.append(self._run("text", [texts_of(transcripts)], most_batches)[0])
        if "voice" in self._models:
            parts.append(self._run("voice", voice_cuts(work, self._voice), most_batches)[0])
        return parts

    def _run(self, role: Role, groups: list[list[Any]], most_batches: int | None) -> tuple[Part, list[Any]]:
        """Items of two groups never share a batch."""
        model, size = self._models[role], self._sizes[role]
        batches = [items[first : first + size] for items in groups for first in range(0, len(items), size)]
        begun, results = Instant.now(), list[Any]()
        for batch in batches[:most_batches]:
            results += model.run(batch)
        return Part(role, begun.passed(), len(results), len(batches[:most_batches])), results


def texts_of(transcripts: list[Transcript]) -> list[str]:
    """What the text model gets, like lengths together: the engine looks for them among what waits; here all does."""
    texts = [segment.text.strip() for transcript in transcripts for segment in transcript.segments]
    return sorted(filter(None, texts), key=len)


def voice_cuts(work: Work, options: VoiceOptions) -> list[list[Any]]:
    """What the voice model gets: groups of int16 [samples], of one length each."""
    groups: dict[int, list[Any]] = {}
    for window in work.index.windows:
        pcm = work.pcm(window)
        for start, end in voice_windows(window.speech, options):
            first = round((start - window.start_seconds) * SAMPLE_RATE)
            samples = pcm[first : first + round((end - start) * SAMPLE_RATE)]
            groups.setdefault(len(samples), []).append(samples)
    return list(groups.values())


def load_all(config: Config, threads: int) -> dict[Role, Model]:
    """All models as the engine loads them, on the CPU."""
    lanes = Lanes(threads)
    return {
        role: load(role, config.models, config.speech, "cpu", config.voice, lanes=lanes)
        for role, _ in configured(config.models)
    }


def main() -> None:
    begun = Instant.now()
    job = read_job()
    config = load_config(settings=job.settings)
    keep_heap_whole()
    share_one_heap()  # as the engine does, where device.memory_gb is not set
    assert job.record is not None
    work, passes = Work.load(Path(job.record)), list[Pass]()
    start = begun.passed()
    for threads in job.threads:
        runs = _prepared(config, job, threads, work)
        if not passes:
            start = begun.passed()
        ready = Instant.now()
        parts = tuple(runs.all(work))
        passes.append(Pass(ready.passed(), parts, threads))
    answer(start, passes)


def _prepared(config: Config, job: Any, threads: int, work: Work) -> Runs:
    """Loaded, and warm: a batch of each model has run."""
    import torch

    torch.set_num_threads(threads)  # with one lane; each of several has its own number
    runs = Runs(load_all(config, threads), config, job.batches)
    keep_freed_memory(threads)
    runs.all(work, most_batches=1)
    return runs


if __name__ == "__main__":
    main()
