"""Decode-only: what the decoders do with a list of media, in a process of its own, nothing sent anywhere.

`benches.floor_runs` starts it, with a `Job` as JSON on standard input; an `Answer` comes back on standard output. It
calls what a decoder calls, task by task: `read_frames` over the spans that the supervisor would plan, and
`read_speech_windows` over the sound track, voice detection included. Every item is dropped at once.
"""

import gc
from collections.abc import Iterator
from pathlib import Path

from benches.floor_work import Instant, Part, Pass, Recorder, answer, read_job
from engine.config import Config, load_config
from engine.heap import keep_heap_whole
from stages.media import probe
from stages.registry import OFF, frame_format
from stages.spans import spans_of
from stages.video import read_frames
from stages.windows import SpeechWindow, read_speech_windows
from transport.messages import FrameFormat, Gap, MediaInfo


class NoRecorder(Recorder):
    """Drops everything: what is measured is decoding."""

    def frame(self, *_: object) -> None:
        """Dropped."""

    def window(self, *_: object) -> None:
        """Dropped."""


class Tasks:
    """What a decoder does with a medium."""

    def __init__(self, config: Config, recorder: Recorder) -> None:
        self._config = config
        self._recorder = recorder
        self._format = frame_format(config.models)
        self._hears = (config.models.speech, config.models.voice) != (OFF, OFF)

    def of(self, medium: str) -> Iterator[Part]:
        """Do all of them, one after the other."""
        path = medium.encode("utf-8", "surrogateescape")
        media = probe(path, self._config.decode)
        if self._format is not None and media.video is not None:
            for start, end in spans_of(media, self._config.decode):
                begun = Instant.now()
                count = self._frames(medium, path, media, self._format, start, end)
                gc.collect()  # as a decoder does behind each task
                yield Part("frames", begun.passed(), count, medium=medium)
        if self._hears and media.audio is not None:
            begun = Instant.now()
            count = self._windows(medium, path, media)
            gc.collect()
            yield Part("sound", begun.passed(), count, medium=medium)

    def _frames(
        self, medium: str, path: bytes, media: MediaInfo, wanted: FrameFormat, start: float, end: float | None
    ) -> int:
        count = 0
        for frame in read_frames(path, media, start, end, wanted, self._config.decode):
            if not isinstance(frame, Gap):
                count += 1
                self._recorder.frame(medium, frame.start_seconds, frame.pixels)
        return count

    def _windows(self, medium: str, path: bytes, media: MediaInfo) -> int:
        count = 0
        for item in read_speech_windows(path, media, self._config.decode, self._config.speech):
            if isinstance(item, SpeechWindow):
                count += 1
                self._recorder.window(medium, (item.start_seconds, item.end_seconds), item.speech, item.pcm)
        return count


def main() -> None:
    begun = Instant.now()
    job = read_job()
    config = load_config(settings=job.settings)
    keep_heap_whole()
    recorder = NoRecorder() if job.record is None else Recorder()
    tasks = Tasks(config, recorder)
    if job.warm_up is not None:
        list(Tasks(config, NoRecorder()).of(job.warm_up))
    ready = Instant.now()
    parts = tuple(part for medium in job.media for part in tasks.of(medium))
    time = ready.passed()
    if job.record is not None:
        recorder.save(Path(job.record))
    answer(begun.until(ready), [Pass(time, parts)])


if __name__ == "__main__":
    main()
