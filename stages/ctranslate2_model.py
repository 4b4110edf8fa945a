"""What CTranslate2 needs: its names of devices and compute types, and weights that can leave the device for a while."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stages.errors import ModelError
from stages.model_files import Files

if TYPE_CHECKING:
    from ctranslate2 import StorageView

UNLOAD_SECONDS = 5.0
UNLOAD_STEP_SECONDS = 0.01


def split_device(device: str) -> tuple[str, int]:
    """ "cuda:1" → ("cuda", 1), as CTranslate2 wants it."""
    kind, _, index = device.partition(":")
    return kind, int(index or 0)


def supported_compute_types(device: str) -> set[str]:
    """Raises ModelError (model-dtype) when CTranslate2 cannot use the device at all."""
    import ctranslate2

    try:
        return set(ctranslate2.get_supported_compute_types(*split_device(device)))
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            "model-dtype", f"models.speech: CTranslate2 cannot use {device}: {error}; set device.name or models.speech"
        ) from error


def choose_compute_type(dtype: str, device: str, supported: set[str]) -> str:
    """`dtype`, or for "auto" the fastest that loses nothing one can hear: float16 on CUDA, int8 on the CPU; float32
    where the device has neither. Raises ModelError (model-dtype) when the device does not support it.
    """
    if dtype == "auto":
        fast = "float16" if device.startswith("cuda") else "int8"
        return fast if fast in supported else "float32"
    if dtype not in supported:
        raise ModelError(
            "model-dtype",
            f'models.speech_dtype = "{dtype}": {device} supports auto, {", ".join(sorted(supported))}',
        )
    return dtype


def in_host_memory(encoded: "StorageView") -> npt.NDArray[np.float32]:
    """[n, 1500, width] from any device and type. NumPy knows no bfloat16, so the type is changed where it lies."""
    import ctranslate2

    host = encoded.to(ctranslate2.DataType.float32).to_device(ctranslate2.Device.cpu)
    return np.array(host)


@contextmanager
def load_errors(path: Path) -> Iterator[None]:
    """ModelError (model-load-failed) instead of CTranslate2's own, except where memory ran out: that one passes."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        if "out of memory" in str(error):
            raise
        raise ModelError("model-load-failed", f"models.speech: {path}: {' '.join(str(error).split())}") from error


class Weights:
    """The weights of a model: on its device, parked in host memory, or dropped until they are read again.

    CTranslate2 makes a copy in host memory (not pinned) when it is asked to unload "to the CPU", and keeps it between
    parks. On the CPU it ignores that request: there, weights that are kept stay where they are.
    """

    def __init__(self, model: Any, files: Files) -> None:
        self._model = model  # ctranslate2.models.Whisper, loaded
        self._files = files
        self._parked = False
        self._dropped = False

    def check_on_device(self) -> None:
        """Raises RuntimeError while they are parked."""
        if self._parked:
            raise RuntimeError("the model is parked: restore() brings it back")

    def park(self, keep: bool) -> None:
        """As `stages.base.Model.park`. Where host memory cannot take the weights, they are dropped."""
        on_cpu = self._model.device == "cpu"
        if not self._dropped and not (keep and on_cpu):
            self._dropped = not self._unload(keep)
        self._parked = True

    def restore(self) -> None:
        """As `stages.base.Model.restore`."""
        if self._dropped:
            self._files.check()
        with load_errors(self._files.path):
            self._load()
        self._parked = self._dropped = False

    def _load(self) -> None:
        try:
            self._model.load_model(keep_cache=True)  # the copy in host memory serves the next `park` too
        finally:
            if not self._model.model_is_loaded:
                self._model.unload_model(to_cpu=True)  # nothing of it is there, but the device cache is given back

    def _unload(self, keep: bool) -> bool:
        """Returns whether the weights are kept in host memory.

        CTranslate2 ignores the request while a batch is running, and its worker counts a batch as running for a moment
        after its result is out. Raises RuntimeError when the weights are still there after UNLOAD_SECONDS.
        """
        for _ in range(round(UNLOAD_SECONDS / UNLOAD_STEP_SECONDS)):
            try:
                self._model.unload_model(to_cpu=keep)
            except (RuntimeError, MemoryError):  # of the copy: there is no host memory for it
                keep = False
            else:
                if not self._model.model_is_loaded:
                    return keep
                time.sleep(UNLOAD_STEP_SECONDS)
        raise RuntimeError(
            f"CTranslate2 did not unload the speech model in {UNLOAD_SECONDS} s: a batch is still running"
        )
