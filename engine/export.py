"""`export`: the transcript of one video out of the store, as subtitles, JSON or speaker turns. Nothing is decoded.

VIDEO ─► its points of `speech` and `speakers` ─► those that belong together ─► Transcript ─► text ─► file
         (engine/video_points.py)                 (Choice)               (stages/transcript.py, stages/subtitles.py)
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.config import Config
from engine.errors import ConfigError
from engine.video_points import Payload, Subject, reading, subject_of
from stages import registry
from stages.base import Role
from stages.errors import ModelError
from stages.sidecar import find_sidecars
from stages.store import SPEAKERS, SPEECH
from stages.subtitles import cues_of, srt, vtt
from stages.transcript import (
    Transcript,
    as_json,
    layers_of,
    names_of,
    rttm,
    segment_of,
    speakers_of,
    turns_of,
    without_repeats,
)
from transport.requests import Target

Format = Literal["srt", "vtt", "json", "rttm"]

CAPTIONS = "captions"  # who wrote a text, beside the labels of speech models


@dataclass(frozen=True, slots=True)
class Export:
    """The result, and what whoever asked for it should know."""

    subject: Subject
    text: Iterator[str]
    notes: tuple[str, ...]  # one line each


def export(config: Config, target: Target, form: Format, with_speakers: bool, text_by: str | None) -> Export:
    """The speech of a video.

    with_speakers: say who speaks. text_by: only the text of this writer, "captions" or a speech model's label; None: as
    the settings say.

    Raises:
        ConfigError: the target names no video, or several; it is not indexed; it has text by several speech models, and
        none is configured; or none by this writer. SluiceError: the store or the ledger cannot be had.
    """
    with reading(config) as reader:
        subject = subject_of(config, target, reader)
        speech = list(reader.payloads(SPEECH, subject.video_id)) if form != "rttm" else []
        speakers = list(reader.payloads(SPEAKERS, subject.video_id)) if with_speakers else []
    if not speech and not speakers and subject.state in (None, "failed"):
        raise ConfigError("not-indexed", f"{subject.name} is not indexed{_because(subject)}; ingest it first")
    choice = Choice(config, subject.name)
    transcript = _transcript(config, subject, choice.speech(speech, text_by), choice.clusters(speakers))
    notes = [*_state(subject), *choice.notes, *_lacks(transcript, form, with_speakers)]
    return Export(subject, _text(transcript, form), tuple(notes))


def _transcript(config: Config, subject: Subject, speech: list[Payload], clusters: list[Payload]) -> Transcript:
    names = names_of(speech, clusters) if clusters else {}
    segments = [segment_of(point, names, subject.duration_seconds) for point in speech]
    layers = layers_of(
        [segment for segment in segments if segment is not None],
        captions_first=config.speech.captions == "prefer",
        caption_language=config.speech.caption_language,
    )
    return Transcript(
        video_id=subject.video_id,
        path=subject.name,
        duration_seconds=subject.duration_seconds,
        segments=without_repeats(layers),
        speakers=speakers_of(clusters),
        turns=turns_of(clusters),
    )


def _text(transcript: Transcript, form: Format) -> Iterator[str]:
    match form:
        case "srt":
            return srt(cues_of(transcript.segments, with_names=True))
        case "vtt":
            return vtt(cues_of(transcript.segments, with_names=False))
        case "json":
            return iter([json.dumps(as_json(transcript), ensure_ascii=False, indent=1) + "\n"])
        case "rttm":
            return rttm(transcript)


# --- what is said beside --------------------------------------------------------------------------------------------


def _state(subject: Subject) -> Iterator[str]:
    if subject.state == "working":
        yield f"{subject.name} is being indexed: this is what is stored so far"
    elif subject.state in ("partial", "failed"):
        yield f"{subject.name} is not wholly indexed{_because(subject)}: this is what is stored of it"


def _because(subject: Subject) -> str:
    return f" ({subject.error})" if subject.error else ""


def _lacks(transcript: Transcript, form: Format, with_speakers: bool) -> Iterator[str]:
    """What is not in the result, though it might be looked for there."""
    voices = "its voices are not told apart (yet): that is done when it is wholly indexed, unless models.voice is off"
    if form == "rttm":
        if not transcript.turns:
            yield f"{transcript.path}: the result is empty; {voices}"
    elif not transcript.segments:
        yield f"{transcript.path}: no speech is stored of it; the result is empty"
    elif with_speakers and not transcript.speakers:
        yield f"{transcript.path}: nobody is named; {voices}"


# --- points of several models -----------------------------------------------------------------------------------------


class Choice:
    """Takes the points that belong together of a video that several models indexed; `notes` say what was left out."""

    def __init__(self, config: Config, name: str) -> None:
        """name: of the video, for messages."""
        self._config = config
        self._name = name
        self.notes: list[str] = []

    def speech(self, points: Sequence[Payload], text_by: str | None) -> list[Payload]:
        """The text of one writer; or captions, and what one speech model heard. Each text once, however many models
        made vectors of it.
        """
        written: dict[str, list[Payload]] = {}
        for point in points:
            written.setdefault(_writer(point), []).append(point)
        if text_by is not None and points and text_by not in written:
            raise ConfigError("no-such-text", f"{self._name} has no text by {text_by}, but by {_listed(written)}")
        kept = {CAPTIONS, self._speech_model(sorted(written.keys() - {CAPTIONS}))} if text_by is None else {text_by}
        return [point for writer in sorted(kept & written.keys()) for point in self._embedded_once(written[writer])]

    def clusters(self, points: Sequence[Payload]) -> list[Payload]:
        """The voices of the video, as one speaker model told them apart."""
        clusters = [point for point in points if point["kind"] == "cluster"]
        seconds: Counter[str] = Counter()
        for point in clusters:
            seconds[point["model"]] += point["seconds"]
        model = self._best(seconds, "voice")
        others = seconds.keys() - {model}
        if others:
            self.notes.append(
                f"{self._name}: speakers as {model} told them apart; {_listed(others)} did, too (models.voice chooses)"
            )
        return [point for point in clusters if point["model"] == model]

    def _speech_model(self, models: Sequence[str]) -> str:
        """Of those that transcribed the video; "" when none did."""
        if len(models) <= 1:
            return next(iter(models), "")
        configured = self._label("speech")
        if configured is None or configured not in models:
            raise ConfigError(
                "several-models",
                f"{self._name} was transcribed by {_listed(models)}; models.speech is none of these: "
                "choose one with --text-by",
            )
        others = set(models) - {configured}
        self.notes.append(f"{self._name}: text by {configured}; there is some by {_listed(others)}, too (--text-by)")
        return configured

    def _embedded_once(self, points: Sequence[Payload]) -> list[Payload]:
        model = self._best(Counter(point["model"] for point in points), "text")
        return [point for point in points if point["model"] == model]

    def _best(self, weights: Counter[str], role: Role) -> str | None:
        """The only model, or the one that is configured, or the one with most of the points."""
        if len(weights) > 1 and (configured := self._label(role)) in weights:
            return configured
        return max(sorted(weights), key=lambda model: weights[model], default=None)

    def _label(self, role: Role) -> str | None:
        """Of the configured model, as points carry it; None: it is off, or not on this machine."""
        source: str = getattr(self._config.models, role)
        if source == registry.OFF:
            return None
        try:
            path = registry.resolve(role, source, Path(self._config.models.directory))
            return registry.identify(role, source, path).info(role, 0).label
        except ModelError:
            return None


def _writer(point: Payload) -> str:
    """Who wrote the words; stores of early versions say only captions or asr."""
    return str(point.get("text_by") or point["source"])


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(sorted(labels))


# --- where the result goes --------------------------------------------------------------------------------------------


def check_output(file: Path, config: Config) -> None:
    """What can be told before anything is read. Raises ConfigError."""
    if file.suffix[1:].lower() in config.run.extensions:
        raise ConfigError("bad-output", f"--output {file}: that is the name of a medium; give another")
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise ConfigError(
            "bad-output", f"--output {file}: cannot be written there; name a file in a writable directory"
        )


def write(done: Export, file: Path) -> str | None:
    """Write the result, whole or not at all; into a pipe or a device as it comes.

    Returns:
        What the new file means for the video; None: nothing.

    Raises:
        ConfigError: it cannot be written, or it is a source file, which nobody writes.
    """
    if _is_among(file, [done.subject.path, *_captions_of(done.subject)]):
        raise ConfigError(
            "bad-output", f"--output {file}: that is the video or a caption file of it, which are read, not written"
        )
    try:
        if file.exists() and not file.is_file():
            _fill(file, done.text)
        else:
            _replace(file.resolve(), done.text)
    except OSError as error:
        raise ConfigError("bad-output", f"--output {file}: {error.strerror}") from error
    if _is_among(file, _captions_of(done.subject)):
        return f"{file} lies beside the video: whoever indexes that anew takes it for its captions (speech.captions)"
    return None


def _replace(file: Path, text: Iterable[str]) -> None:
    partial = file.with_name(f".{file.name}.partial")
    try:
        _fill(partial, text)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _fill(file: Path, text: Iterable[str]) -> None:
    with file.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(text)


def _captions_of(subject: Subject) -> list[bytes]:
    return [track.sidecar for track in find_sidecars(subject.path) if track.sidecar is not None]


def _is_among(file: Path, others: Iterable[bytes]) -> bool:
    paths = [Path(os.fsdecode(other)) for other in others]
    return file.exists() and any(path.exists() and path.samefile(file) for path in paths)
