"""What the models that run in torch have in common: precision, quiet loading, unit vectors."""

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from stages import torchaudio_shim
from stages.base import Vectors
from stages.errors import ModelError

if TYPE_CHECKING:
    import torch


def prepare_transformers() -> None:
    """Make `import transformers` safe and its loading silent. Call before every import of it or of what builds on it.

    transformers imports torchaudio, and draws a progress bar on stderr for every model; the bar would run across ours.
    """
    torchaudio_shim.ensure()
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_errors() -> tuple[type[Exception], ...]:
    """What the libraries raise when the files of a model are damaged, or do not belong together."""
    from safetensors import SafetensorError

    return (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError, pickle.UnpicklingError)


def load_failed(setting: str, path: Path, error: Exception) -> ModelError:
    """One line (model-load-failed) for what `load_errors` lists."""
    why = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, pickle.UnpicklingError):  # torch's own advice is to load it all the same
        why = "its pickled weights are damaged, or would run code"
    return ModelError("model-load-failed", f"{setting}: {path}: {why}")


def dtype_for(name: str, device: str) -> "torch.dtype":
    """The torch type called `name`. auto: float16 on CUDA, half the memory at no visible loss; float32 on the CPU,
    which has no fast half-precision arithmetic.
    """
    import torch

    if name == "auto":
        name = "float16" if device.startswith("cuda") else "float32"
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]


def unit_rows(features: "torch.Tensor", setting: str) -> Vectors:
    """Rows of `features` [n, dimension], any float type and device → float32 in host memory, each of unit length.

    The length is taken in float32: in float16 the sum of squares overflows at 65504.
    Raises ModelError (model-not-finite) when a row holds NaN or infinity; `setting` names what mends it.
    """
    import torch

    rows: Vectors = torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
    # One sum instead of a mask as large as the rows: NaN survives it, and infinity became NaN when normalised.
    if rows.sum() != rows.sum():
        raise ModelError("model-not-finite", f'the model gave NaN or infinity: set {setting} = "float32"')
    return rows
