"""CTranslate2 on CUDA looks for cuBLAS 12 by name when it first multiplies, also where torch has brought cuBLAS 13."""

import ctypes
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from stages.errors import ModelError

LIBRARIES = ("libcublasLt.so.12", "libcublas.so.12")  # in the order in which they need each other


def preload_cublas() -> None:
    """Load cuBLAS 12 into the process, from the package nvidia-cublas-cu12 or from where the system has it.

    Raises:
        ModelError: model-library, when it is nowhere: said at the start, not by every window of speech.
    """
    for name in LIBRARIES:
        if not any(_loads(place) for place in _places(name)):
            raise ModelError(
                "model-library",
                f"the speech model on CUDA needs {name}: run make cuda; "
                'without it, device.name = "cpu" or models.speech = "off"',
            )


def _places(name: str) -> Iterator[str]:
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec is not None else []:
        yield str(Path(root) / "cublas" / "lib" / name)
    yield name


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
