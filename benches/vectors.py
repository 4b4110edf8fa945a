"""Vectors that came through the whole engine, beside those of the plain library calls on the same frames and sound.

`run.py ingest` indexes the media, `run.py points --vectors` reads everything back. The same decoders' output goes to
the libraries themselves, an item at a time: transformers' image model, sentence-transformers, speechbrain. Once more
for each lower precision that the engine can be set to.
"""

import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benches.corpus import SEED
from benches.corpus_sources import MEDIA
from benches.floor_models import SAMPLE_RATE
from benches.floor_runs import Halves
from benches.floor_work import Work
from benches.mixed import mixed_corpus
from benches.options import add_models, tiny_models
from benches.report import Findings, Ratio, Table
from benches.vectors_plain import Matrix, plain_images, plain_texts, plain_voices
from benches.whole_run import Ingest, StoredPoint, points, tiny_settings
from engine.config import load_config
from stages.errors import SluiceError
from stages.options import ModelOptions
from stages.registry import resolve

TITLE = "vectors through the whole engine beside those of the plain library calls"

AIM = 0.9999  # cosine, in float32
FULL = "float32"
PRECISIONS = (FULL, "bfloat16", "float16")
KINDS = {"frames": "image", "speech": "text", "voices": "voice"}  # collection: name of its vector
LOWERED = {"frames": "image", "speech": "text"}  # those whose model can be set to another precision


class VectorsMissingError(SluiceError):
    """The store holds other items than the decoders gave."""


@dataclass(frozen=True)
class Compared:
    """Cosines between stored vectors and plain ones, one a point."""

    collection: str
    precision: str
    cosines: Matrix  # [n]
    mixed_up: Matrix  # the same, each with the plain vector of its neighbour: what a mistake would look like


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("media", type=Path, nargs="*", metavar="MEDIUM", help="files (default: a corpus of --minutes)")
    parser.add_argument("--minutes", type=float, default=1.0, help="of the corpus (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the corpus")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    add_models(parser)


def measure(arguments: Namespace) -> Findings:
    """As `benches.registry` says."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        media = arguments.media or mixed_corpus(directory / "media", arguments.minutes, arguments.seed, MEDIA)
        settings = tiny_settings(tiny_models(arguments))
        Halves(settings, media, directory / "work").record()
        work = Work.load(directory / "work")
        plain = Plain(load_config(settings=settings).models, work, directory)
        compared: list[Compared] = []
        for precision in arguments.precision:
            given = [*settings, f"models.image_dtype={precision}", f"models.text_dtype={precision}"]
            engine = Ingest(given, directory / "run")
            engine.run(media)
            compared += plain.compare(points(engine), precision, KINDS if precision == FULL else LOWERED)
        return Findings(tables=[table(compared), storage_table(plain.vectors)], ratios=ratios(compared), notes=NOTES)


class Plain:
    """The plain vectors of everything that was decoded, each computed once."""

    def __init__(self, models: ModelOptions, work: Work, directory: Path) -> None:
        self._models = models
        self._work = work
        self._directory = directory
        self.vectors: dict[str, Matrix] = {}  # by collection, of the last comparison

    def compare(
        self, stored: Sequence[StoredPoint], precision: str, kinds: Mapping[str, str] = KINDS
    ) -> Iterator[Compared]:
        """Raises VectorsMissingError when not every frame has its point, or a point no sound that it came of."""
        for collection, vector in kinds.items():
            mine = [point for point in stored if point.collection == collection]
            self.vectors[collection] = self._plain(collection, mine)
            ours = np.array([point.vectors[vector] for point in mine], np.float64)
            theirs = self.vectors[collection]
            yield Compared(collection, precision, cosines(ours, theirs), cosines(ours, np.roll(theirs, 1, axis=0)))

    def _plain(self, collection: str, stored: Sequence[StoredPoint]) -> Matrix:
        models, root = self._models, Path(self._models.directory)
        match collection:
            case "frames":
                return plain_images(resolve("image", models.image, root), frames_of(self._work, stored))
            case "voices":
                sounds = sounds_of(self._work, stored)
                return plain_voices(resolve("voice", models.voice, root), sounds, self._directory / "speechbrain")
            case _:
                texts = [str(point.payload["text"]) for point in stored]
                return plain_texts(resolve("text", models.text, root), texts)


# --- what belongs to what: pure ---------------------------------------------------------------------------------------


def frames_of(work: Work, stored: Sequence[StoredPoint]) -> list[Any]:
    """The picture of each point, by file and time. Raises VectorsMissingError when there are more of one than other."""
    places = {
        (Path(each.medium).name, round(each.start_seconds, 6)): number for number, each in enumerate(work.index.frames)
    }
    wanted = [(_file(point), float(point.payload["start_seconds"])) for point in stored]
    if sorted(places) != sorted(wanted):
        raise VectorsMissingError("vectors-missing", f"{len(places)} frames were decoded, {len(wanted)} are stored")
    return [work.frames[places[key]] for key in wanted]


def sounds_of(work: Work, stored: Sequence[StoredPoint]) -> list[Any]:
    """The sound of each voice point: int16 [samples]. Raises VectorsMissingError when one lies in no window."""
    return [_sound_of(work, point) for point in stored]


def _sound_of(work: Work, point: StoredPoint) -> Any:
    start, end = float(point.payload["start_seconds"]), float(point.payload["end_seconds"])
    for window in work.index.windows:
        inside = window.start_seconds - 1e-6 <= start and end <= window.end_seconds + 1e-6
        if Path(window.medium).name == _file(point) and inside:
            first = round((start - window.start_seconds) * SAMPLE_RATE)
            return work.pcm(window)[first : first + round((end - start) * SAMPLE_RATE)]
    raise VectorsMissingError("vectors-missing", f"no window of sound holds {start} s to {end} s of {_file(point)}")


def _file(point: StoredPoint) -> str:
    return Path(str(point.payload["path"])).name


def cosines(ours: Matrix, theirs: Matrix) -> Matrix:
    """Of each pair of rows, in float64. [n, dimension] twice → [n]."""
    products = (ours * theirs).sum(axis=-1)
    return np.asarray(products / (np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)))


def ratios(compared: Sequence[Compared]) -> list[Ratio]:
    """The least cosine of each collection, in full precision."""
    return [
        Ratio(f"least cosine of {each.collection}, {FULL}", float(each.cosines.min()), AIM, "higher")
        for each in compared
        if each.precision == FULL and len(each.cosines)
    ]


def table(compared: Sequence[Compared]) -> Table:
    """Each collection in each precision. Distances from 1 tell more than cosines."""
    rows = tuple(
        (
            each.collection,
            each.precision,
            len(each.cosines),
            float(each.cosines.min()),
            scientific(1 - each.cosines.min()),
            scientific(1 - np.median(each.mixed_up)),
        )
        for each in compared
        if len(each.cosines)
    )
    columns = ("collection", "precision", "points", "least cosine", "1 - least", "1 - median of a neighbour's")
    return Table("Stored vectors beside the plain library's", columns, rows, digits=7)


def storage_table(plain: Mapping[str, Matrix]) -> Table:
    """What rounding to float16 costs, on the wire and in the store, whoever computed the vector."""
    rows = []
    for collection, vectors in plain.items():
        if len(vectors):
            units = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
            rows.append((collection, scientific(1 - cosines(units.astype(np.float16).astype(np.float64), units).min())))
    return Table("What float16 on the wire and in the store costs by itself", ("collection", "1 - least"), tuple(rows))


def scientific(value: float) -> str:
    """Two digits and a power of ten."""
    return f"{value:.1e}"


NOTES = [
    "Both sides get what the decoder gave: pixels at the model's own size, windows of sound as they were cut. Resizing "
    "is the decoder's (docs/formats.md); transformers' own resizing of the whole picture differs by the filter.",
    "Texts are what the speech model wrote, as they are stored; speech in int8, the default on the CPU, has no vectors "
    "of its own. The voice model runs in float32 always.",
    "The models are untrained, and their vectors lie closer together than real ones do: what a neighbour's vector "
    "would give shows how well a mistake would be seen.",
]
