"""Imports torchaudio beside any build of torch.

torchaudio's wheel is built for CUDA. Beside a CPU-only torch its native extension cannot be loaded and the import ends
in an OSError (libc10_cuda.so); beside a torch for another CUDA it ends in a RuntimeError. Nothing that Sluice,
transformers or speechbrain use needs the extension (it holds forced alignment and the fast form of lfilter), and
torchaudio's Python code is written to run without it: a module in its place that says so makes Resample,
MelSpectrogram and compliance.kaldi work.
"""

import importlib
import sys
from types import ModuleType
from typing import Any, NoReturn

_EXTENSION = "torchaudio._extension"


def import_torchaudio() -> ModuleType:
    """The torchaudio module: with its native extension where that loads, without it elsewhere.

    Raises ImportError where torchaudio is not installed.
    """
    try:
        return importlib.import_module("torchaudio")
    except (OSError, RuntimeError):  # the extension does not fit this torch
        _forget_half_imported()
        sys.modules[_EXTENSION] = _stand_in()
        return importlib.import_module("torchaudio")


def ensure() -> None:
    """To be called before transformers or speechbrain are imported: both import torchaudio."""
    import_torchaudio()


def _forget_half_imported() -> None:
    for name in [name for name in sys.modules if name == "torchaudio" or name.startswith("torchaudio.")]:
        del sys.modules[name]


def _stand_in() -> ModuleType:
    """The four names that torchaudio's Python code takes from its extension."""
    module = ModuleType(_EXTENSION, "Stands in for torchaudio's native extension, which does not fit this torch.")
    members: dict[str, Any] = {
        "_IS_TORCHAUDIO_EXT_AVAILABLE": False,
        "_IS_ALIGN_AVAILABLE": False,
        "_check_cuda_version": lambda: None,
        "fail_if_no_align": _without_alignment,
    }
    vars(module).update(members)
    return module


def _without_alignment(function: Any) -> Any:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise RuntimeError(f"{function.__name__} needs torchaudio's native extension, which does not fit this torch")

    return refuse
