"""The libraries' own tools for single steps beside Sluice's stages, on the same frames, windows, texts and weights.

Decoding    decord's get_batch; PyAV, every frame or without those that no other needs; all of them into a list
Pictures    CLIPImageProcessor and CLIPModel on frames of full size; Sluice's come scaled from its decoder
Sound       faster-whisper's decode_audio and get_speech_timestamps, on the whole track
Speech      faster-whisper's BatchedInferencePipeline, told to cut where Sluice cuts
Texts       SentenceTransformer.encode
Voices      speechbrain's EncoderClassifier.encode_batch
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from benches import baseline_steps as steps
from benches.baseline_models import Models, load_models
from benches.baseline_one_by_one import text_model
from benches.corpus import repeated
from benches.corpus_sources import MEDIA, sources
from benches.measuring import Candidate, Cost, median, ratio_of, rounds, spread
from benches.mixed import film_source
from benches.options import add_models, tiny_models
from benches.report import Cell, Findings, Table
from stages import registry
from stages.base import Model, Role, SpeechInput
from stages.image_model import ImageModel
from stages.media import probe
from stages.options import DecodeOptions, ModelOptions, SpeechOptions, VoiceOptions
from stages.video import read_frames
from stages.windows import SpeechWindow, read_speech_windows, voice_windows
from transport.messages import MediaInfo

TITLE = "each step by the libraries' own tools, against Sluice's stage for the same work"

OURS = "Sluice"
DECODE, SPEECH = DecodeOptions(), SpeechOptions(temperatures=(0.0,))
SPEECH_BATCHES = (4, 8, 16)
ROLES: tuple[Role, ...] = ("image", "speech", "text", "voice")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=2.0, help="of media (default: %(default)s)")
    parser.add_argument("--media", type=Path, default=MEDIA, metavar="DIR", help="videos, of which one is taken")
    parser.add_argument("--rounds", type=int, default=2, help="(default: %(default)s)")
    add_models(parser)


@dataclass(frozen=True)
class Work:
    """A video, and what is made of it on the way."""

    path: str
    media: MediaInfo
    ours: dict[Role, Model]
    theirs: Models
    frames: Sequence[Any]  # uint8 RGB, scaled
    full: Sequence[Any]  # … of full size
    sound: Any  # float32 [n]
    windows: Sequence[SpeechWindow]
    texts: Sequence[str]

    @property
    def voices(self) -> list[Any]:
        """int16 [n] each, in the order of their lengths."""
        found = []
        for window in self.windows:
            for start, end in voice_windows(window.speech, VoiceOptions()):
                first = round((start - window.start_seconds) * steps.SAMPLE_RATE)
                found.append(window.pcm[first : first + round((end - start) * steps.SAMPLE_RATE)])
        return sorted(found, key=len)


def measure(arguments: argparse.Namespace) -> Findings:
    """All steps in turn, in this process."""
    with tempfile.TemporaryDirectory(prefix="sluice-libraries-") as name:
        source = film_source(sources(arguments.media, Path(name)))
        path = repeated(source.path, Path(name) / f"video{source.path.suffix}", arguments.minutes * 60)
        work = prepared(path, tiny_models(arguments))
        found = rounds(candidates(work), arguments.rounds)
    return findings(found, work)


def prepared(path: Path, models: dict[str, Path]) -> Work:
    """Models loaded, and what each step takes made by the ones before it."""
    options = ModelOptions(image=str(models["clip"]), speech=str(models["whisper"]), voice=str(models["ecapa"]))
    ours = {role: registry.load(role, options, SPEECH, "cpu") for role in ROLES}
    theirs = load_models(models["clip"], models["whisper"], text_model(), models["ecapa"])
    media = probe(os.fsencode(path), DECODE)
    windows = speech_windows(str(path), media)
    texts = [segment.text for each in transcripts(ours["speech"], windows) for segment in each.segments]
    full = [pixels for _, pixels in steps.read_frames(str(path), "pyav")]
    frames = sluice_frames(str(path), media, ours["image"])
    return Work(str(path), media, ours, theirs, frames, full, steps.read_sound(str(path)), windows, texts)


# --- Sluice's stages --------------------------------------------------------------------------------------------------


def sluice_frames(path: str, media: MediaInfo, model: Model) -> list[Any]:
    """One a second, scaled."""
    assert isinstance(model, ImageModel)
    samples = read_frames(os.fsencode(path), media, 0.0, None, model.frame_format, DECODE)
    return [sample.pixels for sample in samples if hasattr(sample, "pixels")]


def speech_windows(path: str, media: MediaInfo) -> list[SpeechWindow]:
    """All of a track."""
    items = read_speech_windows(os.fsencode(path), media, DECODE, SPEECH)
    return [item for item in items if isinstance(item, SpeechWindow)]


def transcripts(model: Model, windows: Sequence[SpeechWindow]) -> list[Any]:
    """In batches of 8, as the engine begins."""
    return in_batches(model, [SpeechInput(window.pcm, None) for window in windows], 8)


def in_batches(model: Model, items: Sequence[Any], size: int) -> list[Any]:
    """Results of all items."""
    return [result for first in range(0, len(items), size) for result in model.run(list(items[first : first + size]))]


def our_voices(work: Work) -> None:
    """Batches of one length."""
    for _, some in groupby(work.voices, key=len):
        in_batches(work.ours["voice"], list(some), steps.VOICE_BATCH)


# --- the libraries' tools ---------------------------------------------------------------------------------------------


def their_vad(work: Work) -> None:
    """As `BatchedInferencePipeline` calls it."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    sound = steps.read_sound(work.path)
    options = VadOptions(
        threshold=SPEECH.vad_threshold,
        min_speech_duration_ms=SPEECH.min_speech_ms,
        max_speech_duration_s=SPEECH.window_seconds,
        min_silence_duration_ms=SPEECH.min_silence_ms,
        speech_pad_ms=SPEECH.pad_ms,
    )
    get_speech_timestamps(sound, options)


def their_speech(work: Work, batch_size: int) -> None:
    """The same windows."""
    clips = [{"start": window.start_seconds, "end": window.end_seconds} for window in work.windows]
    segments, _ = work.theirs.speech.transcribe(
        work.sound, clip_timestamps=clips, batch_size=batch_size, beam_size=1, temperature=[0.0], word_timestamps=True
    )
    list(segments)


def their_voices(work: Work) -> None:
    """The same windows."""
    speech = [span for window in work.windows for span in window.speech]
    steps.embed_voices(work.sound, speech, work.theirs)


def candidates(work: Work) -> dict[str, Candidate]:
    """ "step: tool" → what is run."""
    ours, theirs = work.ours, work.theirs
    texts = list(work.texts)
    runs: dict[str, Callable[[], Any]] = {
        f"decode: {OURS}": lambda: sluice_frames(work.path, work.media, ours["image"]),
        "decode: PyAV, every frame": lambda: steps.read_frames(work.path, "pyav"),
        "decode: PyAV, skip_frame=NONREF": lambda: steps.read_frames(work.path, "nonref"),
        "decode: decord get_batch": lambda: steps.read_frames(work.path, "decord"),
        f"image: {OURS}": lambda: in_batches(ours["image"], work.frames, steps.IMAGE_BATCH),
        "image: CLIPImageProcessor, CLIPModel": lambda: steps.embed_frames(work.full, theirs),
        f"sound: {OURS}": lambda: speech_windows(work.path, work.media),
        "sound: decode_audio, get_speech_timestamps": lambda: their_vad(work),
        f"speech: {OURS}": lambda: transcripts(ours["speech"], work.windows),
        **{f"speech: BatchedInferencePipeline, {size}": partial(their_speech, work, size) for size in SPEECH_BATCHES},
        f"text: {OURS}": lambda: in_batches(ours["text"], texts, steps.TEXT_BATCH),
        "text: SentenceTransformer.encode": lambda: steps.embed_texts(texts, theirs),
        f"voice: {OURS}": lambda: our_voices(work),
        "voice: EncoderClassifier.encode_batch": lambda: their_voices(work),
    }
    return {name: silent(run) for name, run in runs.items()}


def silent(run: Callable[[], Any]) -> Candidate:
    """A candidate without figures of its own."""

    def candidate() -> None:
        run()

    return candidate


# --- findings ---------------------------------------------------------------------------------------------------------


def findings(costs: dict[str, list[Cost]], work: Work) -> Findings:
    """Medians, and Sluice's cost as a ratio to each tool's. Pure."""
    rows: tuple[tuple[Cell, ...], ...] = tuple((*name.split(": ", 1), *row(some)) for name, some in costs.items())
    columns = ("step", "tool", "wall s", "lowest", "highest", "CPU s")
    table = Table(f"{work.media.duration_seconds or 0.0:.0f} s of media", columns, rows)
    ratios = [
        ratio_of(f"CPU s, {step}: {OURS} to {tool}", cpu(costs[f"{step}: {OURS}"]), cpu(some))
        for step, tool, some in compared(costs)
    ]
    return Findings(
        tables=[table],
        ratios=ratios,
        notes=[
            "a decoder of Sluice takes one thread, PyAV here as many as there are cores: compare CPU s. Its frames "
            "come scaled to the model's size, so the scaling that CLIPImageProcessor does is in Sluice's decoding",
            f"{len(work.windows)} windows of speech, the same for both: faster-whisper's pipeline, left alone, would "
            "join stretches of speech without the silence between, and make fewer",
        ],
    )


def compared(costs: dict[str, list[Cost]]) -> Iterator[tuple[str, str, list[Cost]]]:
    """Step and tool of all that are not Sluice's. Pure."""
    for name, some in costs.items():
        step, _, tool = name.partition(": ")
        if tool != OURS:
            yield step, tool, some


def row(some: Sequence[Cost]) -> tuple[float, float, float, float]:
    """Of one candidate. Pure."""
    walls = [cost.wall_seconds for cost in some]
    return median(walls), *spread(walls), median(cpu(some))


def cpu(some: Sequence[Cost]) -> list[float]:
    """Of each round."""
    return [cost.cpu_seconds for cost in some]
