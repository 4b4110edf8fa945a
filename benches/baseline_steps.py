"""The steps of the systems before us, one after the other on a whole video, each as its library's users write it.

Everything of a video is in memory: all its frames at full size, then its whole sound track, then all its vectors.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from benches.baseline_models import Models
from stages.options import SpeechOptions, VoiceOptions
from stages.phrases import phrase_span, split_phrases, trim_words
from stages.windows import voice_windows
from transport.messages import Word

Reader = Literal["pyav", "nonref", "decord"]
Frames = list[tuple[float, NDArray[np.uint8]]]  # seconds, RGB [height, width, 3] of full size
Rows = NDArray[np.float32]  # [n, dimension]

SAMPLE_RATE = 16_000
IMAGE_BATCH = 32
TEXT_BATCH = 64
VOICE_BATCH = 32
SPEECH = SpeechOptions(temperatures=(0.0,))
VOICE = VoiceOptions()


@dataclass(slots=True)
class Indexed:
    """What became of one video, before it is stored."""

    frames: list[tuple[float, Any]] = field(default_factory=list)  # seconds, vector
    speech: list[tuple[list[Word], Any]] = field(default_factory=list)  # a phrase, vector
    voices: list[tuple[tuple[float, float], Any]] = field(default_factory=list)  # from when to when, vector
    language: str = ""
    seconds: dict[str, float] = field(default_factory=dict)  # that each step took

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure it."""
        begin = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begin


def index(path: str, models: Models, reader: Reader, speech_batch: int, threads: int = 0) -> Indexed:
    """All steps but storing. threads: of the video decoder; 0: as many as it likes."""
    found = Indexed()
    with found.step("decode"):
        frames = read_frames(path, reader, threads)
    with found.step("image"):
        vectors = embed_frames([pixels for _, pixels in frames], models)
        found.frames = [(seconds, vector) for (seconds, _), vector in zip(frames, vectors, strict=True)]
    del frames
    with found.step("sound"):
        sound = read_sound(path)
    if sound is not None:
        listen(sound, models, speech_batch, found)
    return found


def listen(sound: Rows, models: Models, speech_batch: int, found: Indexed) -> None:
    """What is said in a sound track, and by whom."""
    with found.step("speech"):
        segments, info = transcribe(sound, models, speech_batch)
        found.language = info.language
    with found.step("text"):
        phrases = phrases_of(segments)
        found.speech = list(zip(phrases, embed_texts([text_of(phrase) for phrase in phrases], models), strict=True))
    with found.step("voice"):
        found.voices = embed_voices(sound, spoken(info), models)


# --- pictures ---------------------------------------------------------------------------------------------------------


def read_frames(path: str, reader: Reader, threads: int = 0) -> Frames:
    """One frame a second: all of a video, at full size."""
    if reader == "decord":
        return _by_decord(path)
    frames: Frames = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        if reader == "nonref":
            stream.codec_context.skip_frame = "NONREF"
        due = float("-inf")
        for frame in container.decode(stream):
            if frame.time is not None and frame.time >= due:
                frames.append((frame.time, frame.to_ndarray(format="rgb24")))
                due = np.floor(frame.time) + 1.0
    return frames


def _by_decord(path: str) -> Frames:
    import decord

    video = decord.VideoReader(path, num_threads=0)
    rate = video.get_avg_fps()
    numbers = [round(second * rate) for second in range(int(len(video) / rate) + 1)]
    numbers = [number for number in numbers if number < len(video)]
    return [(number / rate, pixels) for number, pixels in zip(numbers, video.get_batch(numbers).asnumpy(), strict=True)]


def embed_frames(pixels: Sequence[NDArray[np.uint8]], models: Models) -> list[Rows]:
    """Vectors of unit length."""
    import torch

    vectors: list[Rows] = []
    with torch.inference_mode():
        for first in range(0, len(pixels), IMAGE_BATCH):
            inputs = models.processor(list(pixels[first : first + IMAGE_BATCH]), return_tensors="pt")
            features = models.image.get_image_features(**inputs).pooler_output
            vectors += list(torch.nn.functional.normalize(features, dim=-1).numpy())
    return vectors


# --- sound ------------------------------------------------------------------------------------------------------------


def read_sound(path: str) -> Rows | None:
    """The whole track, float32 [n] at 16 kHz; None where there is none."""
    from faster_whisper import decode_audio

    with av.open(path) as container:
        if not container.streams.audio:
            return None
    sound: Rows = decode_audio(path, sampling_rate=SAMPLE_RATE)
    return sound


def transcribe(sound: Rows, models: Models, batch_size: int) -> tuple[list[Any], Any]:
    """Segments with words, and what faster-whisper tells of the track. Voice detection is set as Sluice's is."""
    segments, info = models.speech.transcribe(
        sound,
        batch_size=batch_size,
        beam_size=SPEECH.beam_size,
        temperature=list(SPEECH.temperatures),
        word_timestamps=True,
        vad_parameters={
            "threshold": SPEECH.vad_threshold,
            "min_speech_duration_ms": SPEECH.min_speech_ms,
            "min_silence_duration_ms": SPEECH.min_silence_ms,
            "speech_pad_ms": SPEECH.pad_ms,
        },
    )
    return list(segments), info


def phrases_of(segments: Sequence[Any]) -> list[list[Word]]:
    """A segment is up to 30 s long; it is searched by phrases, cut as Sluice cuts them."""
    phrases: list[list[Word]] = []
    for segment in segments:
        words = [Word(word.start, word.end, word.word) for word in segment.words or [] if word.word.strip()]
        phrases += split_phrases(trim_words(words, float("inf")))
    return phrases


def text_of(phrase: Sequence[Word]) -> str:
    """What is embedded and shown."""
    return "".join(word.text for word in phrase).strip()


def span_of(phrase: Sequence[Word]) -> tuple[float, float]:
    """From when to when, in seconds."""
    return phrase_span(phrase, float("inf"))


def embed_texts(texts: list[str], models: Models) -> list[Rows]:
    """Vectors of unit length."""
    return list(models.text.encode(texts, batch_size=TEXT_BATCH, normalize_embeddings=True)) if texts else []


def spoken(info: Any) -> list[tuple[float, float]]:
    """Where the voice detector found speech, in seconds: it need not run again for the voices."""
    return [
        (clip["start"] / SAMPLE_RATE, clip["end"] / SAMPLE_RATE) for clip in info.transcription_options.clip_timestamps
    ]


def embed_voices(
    sound: Rows, speech: Sequence[tuple[float, float]], models: Models
) -> list[tuple[tuple[float, float], Rows]]:
    """Windows of 3 s and less, cut as Sluice cuts them, in batches of equal length; with vectors of unit length."""
    import torch

    found: list[tuple[tuple[float, float], Rows]] = []
    with torch.inference_mode():
        for length, windows in by_length(voice_windows(speech, VOICE)):
            for first in range(0, len(windows), VOICE_BATCH):
                some = windows[first : first + VOICE_BATCH]
                starts = [round(start * SAMPLE_RATE) for start, _ in some]
                batch = torch.from_numpy(np.stack([sound[start : start + length] for start in starts]))
                rows = torch.nn.functional.normalize(models.voice.encode_batch(batch).squeeze(1), dim=-1).numpy()
                found += zip(some, rows, strict=True)
    return found


def by_length(windows: Sequence[tuple[float, float]]) -> Iterator[tuple[int, list[tuple[float, float]]]]:
    """Windows with their number of samples, those of one length together."""
    length: Callable[[tuple[float, float]], int] = lambda window: round((window[1] - window[0]) * SAMPLE_RATE)  # noqa: E731
    for samples, some in groupby(sorted(windows, key=length), key=length):
        yield samples, list(some)
