"""Labelled media, indexed by the engine as anybody would with run.py, and what is then in the store."""

import os
import subprocess
import sys
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benches.labels import Interval, Labels, Utterance
from benches.scoring import Place
from engine.search_flow import ROLE_OF
from stages.audio import AudioChunk, read_audio
from stages.base import ROLES, Model, Query
from stages.media import probe
from stages.options import DecodeOptions, ModelOptions, SpeechOptions, StoreOptions
from stages.qdrant import open_store
from stages.registry import is_local, list_models, load
from stages.store import FRAMES, SPEAKERS, SPEECH, Store
from stages.timeline import SAMPLE_RATE, Samples
from stages.tiny import build_tiny
from stages.windows import to_pcm

ROOT = Path(__file__).parents[1]
TINY = {"image": "clip", "speech": "whisper", "voice": "ecapa"}  # family of the stand-in for a role
PARTIAL = 3  # exit code: some of the media could not be indexed, or not wholly

Payload = dict[str, Any]
Payloads = list[Payload]


class EngineError(Exception):
    """A command of run.py failed; its last words."""


def chosen_models(configured: ModelOptions, given: Mapping[str, str | None], directory: Path) -> ModelOptions:
    """For each role the model that was given, or else the configured one if it is here, or else a tiny one.

    directory: where tiny ones are built. Directories become absolute. Raises ModelError.
    """
    wanted = _with(configured, {role: source for role, source in given.items() if source})
    missing = [row.role for row in list_models(wanted) if row.state == "model-missing" and not given.get(row.role)]
    built = build_tiny(directory, [TINY[role] for role in missing if role in TINY])
    stand_ins: dict[str, str] = {role: str(built[TINY[role]]) for role in missing if role in TINY}
    chosen = _with(wanted, {**stand_ins, "directory": str(Path(wanted.directory).absolute())})
    return _with(chosen, {role: _absolute(getattr(chosen, role)) for role in ROLES})


def _with(options: ModelOptions, changes: Mapping[str, str]) -> ModelOptions:
    return msgspec.structs.replace(options, **changes)


def _absolute(source: str) -> str:
    return str(Path(source).expanduser().absolute()) if is_local(source) else source


@dataclass(frozen=True)
class LabelledIndex:
    """A directory with links to media, perhaps with captions made from the labels beside them, and a store of it."""

    directory: Path
    models: ModelOptions
    captions: bool  # words come from the labels, not from the speech model
    options: Sequence[str] = ()  # of run.py

    def build(self, labels: Sequence[Labels]) -> dict[str, str]:
        """Index these media; returns those that could not be indexed, and why. Raises EngineError."""
        media = self.directory / "media"
        media.mkdir(parents=True)
        for each in labels:
            (media / each.medium.name).symlink_to(each.medium.absolute())
            if self.captions and each.utterances:
                (media / f"{each.medium.stem}.srt").write_text(as_captions(each.utterances), "utf-8")
        paths = [str(media / each.medium.name) for each in labels]
        said = self._run("ingest", *paths, "--json", accepted=(0, PARTIAL))
        rows = msgspec.json.decode(said)["videos"]
        return {medium_of(row): row["error"]["message"] for row in rows if row["status"] == "failed"}

    def enroll(self, name: str, clips: Sequence[Path]) -> str | None:
        """Enroll a person; None when that was done, or else why it was not."""
        try:
            self._run("enroll", name, *map(str, clips))
        except EngineError as refusal:
            return str(refusal)
        return None

    def read(self) -> "Stored":
        """What is stored now. Raises StoreError."""
        store = self.store()
        try:
            return Stored(**{name: _payloads(store, name) for name in (SPEECH, SPEAKERS, FRAMES)})
        finally:
            store.close()

    def store(self) -> Store:
        """The store, to be read and closed."""
        return open_store(StoreOptions(path=str(self.directory / "store")), None, read_only=True)

    def _run(self, *arguments: str, accepted: Sequence[int] = (0,)) -> str:
        settings = {f"models.{role}": getattr(self.models, role) for role in (*ROLES, "directory")}
        settings["run.state"] = f"{self.directory}/state"
        settings["speech.captions"] = "prefer" if self.captions else "ignore"
        options = ["--store", str(self.directory / "store"), *self.options]
        options += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        command = [sys.executable, "run.py", *arguments, *options]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, encoding="utf-8", errors="surrogateescape", check=False
        )
        if done.returncode not in accepted:
            said = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
            raise EngineError(said.splitlines()[-1])
        return done.stdout


def _payloads(store: Store, collection: str) -> Payloads:
    return [point.payload for point in store.scroll(collection, with_vectors=False)]


@dataclass(frozen=True)
class Stored:
    """Payloads of stored points."""

    speech: Payloads = field(default_factory=list)
    speakers: Payloads = field(default_factory=list)
    frames: Payloads = field(default_factory=list)

    @property
    def voices(self) -> Payloads:
        """The voices of videos that were told apart."""
        return [payload for payload in self.speakers if payload["kind"] == "cluster"]

    def of_collection(self, name: str) -> Payloads:
        """All of a collection."""
        payloads: Payloads = getattr(self, name)
        return payloads


def of_medium(payloads: Payloads, medium: str) -> Payloads:
    """Those of one medium."""
    return [payload for payload in payloads if medium_of(payload) == medium]


def medium_of(payload: Mapping[str, Any]) -> str:
    """The medium's name."""
    return Path(payload["path"]).name


def as_captions(utterances: Sequence[Utterance]) -> str:
    """A SubRip file of what is said, without who says it."""
    return "\n".join(
        f"{number}\n{_clock(each.start_seconds)} --> {_clock(each.end_seconds)}\n{each.text}\n"
        for number, each in enumerate(utterances, 1)
    )


def _clock(seconds: float) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02},{milliseconds % 1000:03}"


def write_clip(medium: Path, intervals: Sequence[Interval], target: Path) -> Path:
    """Write these stretches of a medium's sound, one after the other, as a WAV file. Raises MediaError."""
    path = os.fsencode(medium)
    chunks = read_audio(path, probe(path, DecodeOptions()), DecodeOptions())
    pieces = [
        _within(chunk, start, end) for chunk in chunks if isinstance(chunk, AudioChunk) for start, end in intervals
    ]
    with wave.open(str(target), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(to_pcm(np.concatenate(pieces)).astype("<i2").tobytes())
    return target


def _within(chunk: AudioChunk, start: float, end: float) -> Samples:
    first, last = (max(0, round((seconds - chunk.start_seconds) * SAMPLE_RATE)) for seconds in (start, end))
    return chunk.samples[first:last]


class Searches:
    """Finds what is nearest to a text in an index, as `search` does, with models that are loaded once."""

    def __init__(self, models: ModelOptions) -> None:
        self._models = models
        self._loaded: dict[str, Model] = {}

    def places(self, store: Store, collection: str, query: str, limit: int, hybrid: bool = False) -> list[Place]:
        """Where the best hits are, best first. Raises ModelError and StoreError."""
        role = ROLE_OF[collection]
        if role not in self._loaded:
            self._loaded[role] = load(role, self._models, SpeechOptions(), "cpu", towers="text")
        vector = self._loaded[role].run([Query(query)])[0]
        hits = store.search(collection, role, vector, limit, text=query if hybrid else None)
        return [Place(medium_of(hit.payload), hit.payload["start_seconds"], hit.payload["end_seconds"]) for hit in hits]
