"""Whole runs in which the memory of every process is watched, as `benches.memory_child` does them."""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benches.memory_child import Job, Result
from benches.whole_run import ROOT, tiny_settings
from engine.config import load_config
from stages.errors import SluiceError
from stages.media import probe
from stages.options import DecodeOptions
from stages.qdrant import open_store
from stages.store import FRAMES, SPEECH, VOICES
from transport.messages import MediaInfo


class NeverStoppedError(SluiceError):
    """The run was over before the engine had been stopped for as long as it should."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one whole run took, and what came of it. Memory in MB."""

    backend: str
    minutes: float
    stopped_seconds: float
    imports_mb: float  # of a decoder that does nothing
    peaks_mb: Mapping[str, float]  # by role; of several decoders the highest
    anonymous_mb: float  # of that decoder: the part of its memory that is no file
    status: str
    gaps: int
    points: Mapping[str, int]  # by collection
    ids: str  # digest of all of them
    hours_per_hour: float

    @property
    def above_imports_mb(self) -> float:
        """Of the highest decoder."""
        return self.peaks_mb["decoder"] - self.imports_mb

    @property
    def outcome(self) -> tuple[Any, ...]:
        """What has to be the same however the run went. Not "indexed": where copies are joined, the sound of an MP4 may
        step back by a frame, which is told as a gap.
        """
        return self.ids, self.status, self.gaps


def run(medium: Path, backend: str, models: Mapping[str, Path], stop_seconds: float = 0.0, decoders: int = 1) -> Run:
    """Index a medium in a whole run.

    Raises NeverStoppedError when it is over too soon, subprocess.CalledProcessError when it fails: its words are on
    standard error.
    """
    libraries = libraries_of(probe(os.fsencode(medium), DecodeOptions()), backend)
    with tempfile.TemporaryDirectory() as directory:
        settings = [*tiny_settings(models), f"decode.backend={backend}", f"decode.processes={decoders}"]
        settings += [f"store.path={directory}/store", f"run.state={directory}/state"]
        result = _result_of(Job(str(medium), tuple(settings), libraries, stop_seconds))
        counts, digest = stored(settings)
    if result.stopped_seconds < stop_seconds:
        raise NeverStoppedError(
            "never-stopped",
            f"the run on {medium.name} was over before the engine had been stopped for {stop_seconds} s",
        )
    row, totals = result.report["videos"][0], result.report["totals"]
    peaks = {role: size / 1e6 for role, size in totals["peak_rss_bytes"].items()}
    return Run(
        backend=backend,
        minutes=row["duration_seconds"] / 60,
        stopped_seconds=round(result.stopped_seconds, 1),
        imports_mb=result.imports_mb,
        peaks_mb={**peaks, "decoder": result.decoder_mb},
        anonymous_mb=result.decoder_anonymous_mb,
        status=row["status"],
        gaps=len(row["gaps"]),
        points=counts,
        ids=digest,
        hours_per_hour=totals["hours_per_hour"],
    )


def libraries_of(media: MediaInfo, backend: str) -> tuple[str, ...]:
    """Which large libraries a decoder imports on its way through such a medium. Pure."""
    detector = ("onnxruntime",) if media.audio is not None else ()
    return (*detector, "decord") if backend == "decord" and media.video is not None else detector


def _result_of(job: Job) -> Result:
    command = [sys.executable, "-m", "benches.memory_child"]
    done = subprocess.run(command, input=msgspec.json.encode(job), stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Result)


def stored(settings: Sequence[str]) -> tuple[dict[str, int], str]:
    """How many points each collection has, and a digest of their ids."""
    digest, counts = hashlib.sha256(), {}
    store = open_store(load_config(settings=settings).store, None, read_only=True)
    for collection in (FRAMES, SPEECH, VOICES):
        ids = [point.id for point in store.scroll(collection, with_vectors=False)]
        digest.update("\n".join([collection, *sorted(ids)]).encode())
        counts[collection] = len(ids)
    store.close()
    return counts, digest.hexdigest()
