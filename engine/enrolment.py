"""Clips as voice samples: their sound is read, judged, and embedded on the CPU, in the process of the command.

clip ─ decode ─ voice detection ─ windows of 1 to 3 s ─► speaker model ─► two voices? ─► SAMPLE_VECTORS vectors
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.config import Config
from engine.files import shown
from engine.jobs import covered_seconds
from stages.base import Pcm, Vector
from stages.diarization import Diarizer
from stages.errors import MediaError
from stages.media import content_of, probe
from stages.options import VoiceOptions
from stages.profiles import SpeakerError, unit
from stages.registry import SAMPLE_RATE, load
from stages.windows import SpeechWindow, read_speech_windows, voice_windows
from transport.messages import MediaInfo, VoiceSample
from transport.requests import MAX_SAMPLES

MAX_SPEECH_SECONDS = 600.0  # of one clip: ten minutes of a voice are as good as an hour, and take a minute
SAMPLE_VECTORS = 16  # of one clip, each the mean of an equal share of its windows: 28 kB of a request
BATCH_WINDOWS = 16  # embedded at once
OTHER_VOICE_SHARE = 0.1  # of a clip's speech: a second voice that has less is a word thrown in
OTHER_VOICE_SECONDS = 2.0  # … or has less than this
NEAR_PEAK = 0.98  # of the loudest sample: where the tops of clipped waves lie
CLIPPED_SHARE = 0.05  # of the samples of speech there: real speech has less than 0.0001, at three times full scale 0.04

Run = Callable[[list[Pcm]], Sequence[Vector]]  # windows of one length → float32 [dimension] each, of length 1
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Clip:
    """A file that can be opened."""

    path: bytes
    shown_path: str
    content: str  # sha256
    media: MediaInfo


@dataclass(slots=True)
class Voice:
    """What was heard of a clip."""

    detected_seconds: float = 0.0  # of speech
    spans: list[tuple[float, float]] = field(default_factory=list)  # the windows
    vectors: list[Vector] = field(default_factory=list)  # theirs
    levels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(32_769, np.int64))  # samples of speech, by |pcm|
    is_cut_off: bool = False  # there is more speech than was read


def voice_samples(config: Config, paths: Sequence[bytes], say: Say) -> tuple[VoiceSample, ...]:
    """The voices of some clips. `say` is told of each, in a line.

    Raises:
        SpeakerError: a clip is not fit for a profile. ModelError: the voice model cannot be loaded.
    """
    if len(paths) > MAX_SAMPLES:
        raise SpeakerError(
            "clip-too-many", f"{len(paths)} clips; {MAX_SAMPLES} at most: give the others in a second call"
        )
    clips = [open_clip(path, config) for path in paths]  # before the model: a mistyped name is found at once
    model = load("voice", config.models, config.speech, "cpu", config.voice)
    return tuple(sample_of(clip, config, model.run, say) for clip in clips)


def open_clip(path: bytes, config: Config) -> Clip:
    """Hash a file, sound or video, and look what it holds. Raises SpeakerError "clip-…" with the code of MediaError."""
    absolute = os.path.abspath(path)  # noqa: PTH100 - links are kept as they are, and bytes
    try:
        content, media = content_of(absolute).sha256, probe(absolute, config.decode)
    except MediaError as error:
        raise SpeakerError(f"clip-{error.code}", f"{shown(path)}: {error.message}") from error
    if media.audio is None:
        raise SpeakerError("clip-no-sound", f"{shown(path)} has no sound track: take a clip in which somebody speaks")
    return Clip(absolute, shown(absolute), content, media)


def sample_of(clip: Clip, config: Config, run: Run, say: Say) -> VoiceSample:
    """The voice of one clip. Raises SpeakerError "clip-…" when it is not fit for a profile."""
    voice = hear(clip, config, run)
    spoken_seconds = covered_seconds(voice.spans)
    check_sound(clip.shown_path, voice, spoken_seconds, config.voice)
    check_one_voice(clip.shown_path, voice, config.voice)
    more = f" (only the first {MAX_SPEECH_SECONDS / 60:g} minutes are used)" if voice.is_cut_off else ""
    say(f"{clip.shown_path}: {spoken_seconds:.0f} s of speech{more}")
    return VoiceSample(
        content=clip.content,
        shown_path=clip.shown_path,
        seconds=round(spoken_seconds, 2),
        vectors=shares(np.stack(voice.vectors)),
    )


def hear(clip: Clip, config: Config, run: Run) -> Voice:
    """Read a clip's speech, at most MAX_SPEECH_SECONDS of it, and embed it. Memory stays at one window of sound.

    Raises:
        SpeakerError: the file cannot be read.
    """
    voice = Voice()
    try:
        for item in read_speech_windows(clip.path, clip.media, config.decode, config.speech):
            if not isinstance(item, SpeechWindow):
                continue  # a hole in the sound is no matter here
            if voice.detected_seconds >= MAX_SPEECH_SECONDS:
                voice.is_cut_off = True
                break
            _take(item, voice, config.voice, run)
    except MediaError as error:
        raise SpeakerError(f"clip-{error.code}", f"{clip.shown_path}: {error.message}") from error
    return voice


def _take(window: SpeechWindow, voice: Voice, options: VoiceOptions, run: Run) -> None:
    """Add what one window of speech holds."""
    for start, end in window.speech:
        voice.detected_seconds += end - start
        loudness = np.abs(_cut(window, start, end).astype(np.int32))
        voice.levels += np.bincount(loudness, minlength=len(voice.levels))
    spans = voice_windows(window.speech, options)
    for first in range(0, len(spans), BATCH_WINDOWS):
        voice.vectors += _embedded([_cut(window, *span) for span in spans[first : first + BATCH_WINDOWS]], run)
    voice.spans += spans


def _cut(window: SpeechWindow, start_seconds: float, end_seconds: float) -> Pcm:
    first = round((start_seconds - window.start_seconds) * SAMPLE_RATE)
    return window.pcm[first : first + round((end_seconds - start_seconds) * SAMPLE_RATE)]


def _embedded(windows: Sequence[Pcm], run: Run) -> list[Vector]:
    """In the order of the windows; the model takes one length at a time."""
    vectors: dict[int, Vector] = {}
    for length in {len(pcm) for pcm in windows}:
        places = [place for place, pcm in enumerate(windows) if len(pcm) == length]
        vectors |= zip(places, run([windows[place] for place in places]), strict=True)
    return [vectors[place] for place in range(len(windows))]


# --- is it fit? -----------------------------------------------------------------------------------------------------


def check_sound(shown_path: str, voice: Voice, spoken_seconds: float, options: VoiceOptions) -> None:
    """Refuse what has no speech, too little, or hardly any that is not clipped. Raises SpeakerError."""
    if not voice.detected_seconds:
        raise SpeakerError("clip-no-speech", f"{shown_path}: no speech was found in it: take another clip")
    if spoken_seconds < options.enroll_min_seconds:
        found_seconds = math.floor(10 * spoken_seconds) / 10  # never "5.0 s, and 5 s are needed"
        raise SpeakerError(
            "clip-too-short",
            f"{shown_path}: {found_seconds} s of speech in pieces of {options.min_seconds:g} s and longer; "
            f"{options.enroll_min_seconds:g} s are needed (voice.enroll_min_seconds): take a longer clip",
        )
    share = clipped_share(voice.levels)
    if share > CLIPPED_SHARE:
        raise SpeakerError(
            "clip-clipped",
            f"{shown_path}: {share:.0%} of its speech is clipped, for it was recorded too loud: take another clip",
        )


def clipped_share(levels: NDArray[np.int64]) -> float:
    """Share of the samples within two per cent of the loudest. levels: how many samples there are of each loudness.

    Speech is seldom near its peak; clipping flattens every wave there. (Sound that was clipped, then made quieter and
    then resampled has ripples in place of the flat tops, and is not noticed.)
    """
    peak = int(np.flatnonzero(levels)[-1])
    return float(levels[int(NEAR_PEAK * peak) :].sum() / levels.sum()) if peak else 0.0


def check_one_voice(shown_path: str, voice: Voice, options: VoiceOptions) -> None:
    """Refuse a clip in which two people speak. Raises SpeakerError "clip-two-voices"."""
    diarizer = Diarizer(len(voice.vectors[0]), options)
    starts, ends = np.array(voice.spans).T
    diarizer.add(starts, ends, np.stack(voice.vectors))
    seconds = sorted((float(each) for each in diarizer.finish().seconds), reverse=True)
    others = sum(seconds[1:])
    if others >= max(OTHER_VOICE_SECONDS, OTHER_VOICE_SHARE * sum(seconds)):
        raise SpeakerError(
            "clip-two-voices",
            f"{shown_path}: {len(seconds)} people speak in it ({seconds[0]:.0f} s the one, {others:.0f} s "
            f"{'the other' if len(seconds) == 2 else 'the others'}): cut it so that one is left",
        )


def shares(vectors: NDArray[np.float32]) -> tuple[tuple[float, ...], ...]:
    """[n, dimension] as at most SAMPLE_VECTORS vectors of length 1, each the mean of neighbours; float16 precision."""
    parts = np.array_split(vectors, min(len(vectors), SAMPLE_VECTORS))
    means = np.stack([unit(part.mean(axis=0)) for part in parts]).astype(np.float16)
    return tuple(tuple(float(value) for value in row) for row in means)
