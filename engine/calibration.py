"""What a model's batches take, measured at the start by probes, and remembered for the next start."""

import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from engine.budget import Cell, CostModel
from engine.device import Device
from engine.faults import is_out_of_memory
from stages.base import Model

FILE_VERSION = 1
FILE_NAME = "calibration.json"
LIBRARIES = ("torch", "ctranslate2")  # what a batch takes is up to them

Natural = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]


class SavedCell(msgspec.Struct, frozen=True, array_like=True):
    """One cell of a cost model."""

    length_class: Natural
    count: Positive
    peak_bytes: Natural
    length: Natural


class SavedModel(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a model on a device."""

    fixed_bytes: Natural
    batch: Positive  # size that was worth it
    evidence: Natural
    cells: tuple[SavedCell, ...]
    failures: tuple[tuple[Natural, Positive, Natural], ...]  # length class, items, bytes that were too few


class SavedFile(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    version: int
    models: dict[str, SavedModel]


def probe(
    model: Model, device: Device, cost: CostModel, room: Callable[[], int], most: int, until: Callable[[], bool]
) -> None:
    """Run batches of 1, 2, 4, … of the largest items, up to `most`, and put into `cost` what they take.

    Stops early when the next batch would not fit by what is known, when one does not, or when `until` says so.
    Raises what the model raises, other than out of memory.
    """
    length = model.probe_length
    count = 1
    while count <= most:
        predicted = cost.predict(count, length)
        if predicted is not None and predicted > room():
            return
        if not _probe_once(model, device, cost, room(), count):
            device.release()
            return
        if until():
            return
        count *= 2


def _probe_once(model: Model, device: Device, cost: CostModel, room_bytes: int, count: int) -> bool:
    """False when memory ran out."""
    with device.measure(model.outside_torch) as peak:
        try:
            model.probe(count)
            fitted = True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            fitted = False
    if not fitted:
        cost.ran_out(count, model.probe_length, room_bytes)
    else:
        cost.observe(count, model.probe_length, peak.extra_bytes or 0)  # 0: the device cannot measure
    return fitted


class CalibrationFile:
    """Costs by model, revision, precision, device and library versions, in a file of their own.

    A file that is damaged or of another version is not used, which `note` says; the next `save` replaces it.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE_NAME
        self.note: str | None = None
        self._models = self._read()

    def find(self, key: str) -> SavedModel | None:
        """What is remembered under a key."""
        return self._models.get(key)

    def save(self, models: dict[str, SavedModel]) -> None:
        """Remember these, beside those of other models and devices. Written whole, or not at all."""
        self._models.update(models)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = msgspec.json.format(msgspec.json.encode(SavedFile(version=FILE_VERSION, models=self._models)))
        descriptor, name = tempfile.mkstemp(prefix=FILE_NAME, dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(name).replace(self.path)
        finally:
            Path(name).unlink(missing_ok=True)  # where it was not put into place: a full disk must not fill with them

    def _read(self) -> dict[str, SavedModel]:
        try:
            content = self.path.read_bytes()
            found = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
            if msgspec.json.decode(found["version"]) != FILE_VERSION:
                self.note = f"{self.path} is of another version: it is not used, and what it held is measured anew"
                return {}
            return msgspec.json.decode(content, type=SavedFile).models
        except FileNotFoundError:
            return {}
        # Text that is not UTF-8 and nesting without end are Python's own errors, which msgspec lets through.
        except (OSError, msgspec.MsgspecError, KeyError, UnicodeDecodeError, RecursionError) as error:
            reason = " ".join(str(error).split())
            self.note = f"{self.path} cannot be read ({reason}): it is not used, and what it held is measured anew"
            return {}


def key_of(model: Model, device: Device) -> str:
    """What the costs of a model hold for: these weights, in this precision, on this kind of device, run by these
    libraries.
    """
    libraries = " ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return " | ".join((model.info.role, model.info.label, model.precision, device.label, libraries))


def saved(cost: CostModel, fixed_bytes: int, batch: int) -> SavedModel:
    """A cost model as it stands in the file."""
    return SavedModel(
        fixed_bytes=fixed_bytes,
        batch=batch,
        evidence=cost.evidence,
        cells=tuple(
            SavedCell(kind, count, cell.peak_bytes, cell.length)
            for kind, row in sorted(cost.rows.items())
            for count, cell in sorted(row.items())
        ),
        failures=tuple(
            (kind, count, room_bytes)
            for kind, failed in sorted(cost.failures.items())
            for count, room_bytes in sorted(failed.items())
        ),
    )


def restored(entry: SavedModel) -> CostModel:
    """The cost model that was saved."""
    cost = CostModel(evidence=entry.evidence)
    for kind, count, peak_bytes, length in map(msgspec.structs.astuple, entry.cells):
        cost.rows.setdefault(kind, {})[count] = Cell(peak_bytes, length)
    for kind, count, room_bytes in entry.failures:
        cost.failures.setdefault(kind, {})[count] = room_bytes
    return cost
