"""What a model that does not fit would need, and what to do about it, in one line."""

import json
import math
from pathlib import Path
from typing import Any, Literal

from engine.budget import GIB
from engine.errors import StartError
from stages.base import Role
from stages.model_files import local_files
from stages.options import ModelOptions
from stages.registry import resolve

# GB of the card → device.memory_gb of configs/gpu-*gb.toml.
PROFILES = {4: 3.2, 6: 5.0, 8: 7.0, 12: 10.8, 16: 14.0, 24: 21.0, 80: 74.0}
CPU_PROFILE_GB = 4.0  # device.memory_gb of configs/cpu.toml

# In safetensors (huggingface.co/docs/safetensors, "Format"); integers keep their size whatever the precision.
FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

# What an engine that answers no queries leaves on disk, by the names of the tensors: an image model's text tower, and
# the scale and bias of its loss (transformers' CLIPModel, SiglipModel).
UNUSED = {"image": ("text_", "logit_")}

# What is known of a need: measured with one item; told from the model's files; or only that one item did not fit.
Basis = Literal["measured", "files", "failed"]


def estimate_bytes(role: Role, options: ModelOptions, device: str, serves_queries: bool = False) -> int:
    """What a model's weights should take on a device, by its files. Exact for safetensors; else the size of the file,
    halved where float32 becomes float16, or float16 int8, as files of that kind are mostly published. Of an image model
    in such a file that is an upper bound, for its text tower is not told apart. serves_queries: it is loaded, too.

    Raises ModelError as `stages.registry.resolve` does.
    """
    path = resolve(role, getattr(options, role), Path(options.directory))
    files = [path / name for name in local_files(role, path) if Path(name).suffix in (".safetensors", ".bin", ".ckpt")]
    if role == "speech":
        return round(sum(file.stat().st_size for file in files) * (0.5 if "int8" in options.speech_dtype else 1.0))
    dtype = {"image": options.image_dtype, "text": options.text_dtype}.get(role, "float32")
    if dtype == "auto":
        dtype = "float16" if device.startswith("cuda") else "float32"
    unused = () if serves_queries else UNUSED.get(role, ())
    return sum(_file_bytes(file, DTYPE_BYTES[dtype], unused) for file in files)


def _file_bytes(file: Path, float_bytes: int, unused: tuple[str, ...]) -> int:
    if file.suffix != ".safetensors":
        return file.stat().st_size * float_bytes // FLOAT_BYTES["F32"]
    with file.open("rb") as content:
        header: dict[str, Any] = json.loads(content.read(int.from_bytes(content.read(8), "little")))
    header.pop("__metadata__", None)
    return sum(_tensor_bytes(tensor, float_bytes) for name, tensor in header.items() if not name.startswith(unused))


def _tensor_bytes(tensor: dict[str, Any], float_bytes: int) -> int:
    start, end = tensor["data_offsets"]
    return math.prod(tensor["shape"]) * float_bytes if tensor["dtype"] in FLOAT_BYTES else int(end - start)


def too_small(
    role: Role,
    source: str,
    need_bytes: int,
    basis: Basis,
    *,
    budget_bytes: int,
    reach_bytes: int,
    setting: str,
    on_cpu: bool,
) -> StartError:
    """The error (budget-too-small): which model needs how much, and which profile fits.

    basis: where need_bytes comes from. reach_bytes: what this process has and could get. setting: what made the budget.
    """
    budget_gb = math.floor(100 * budget_bytes / GIB + 1e-6) / 100  # 0.6 GB are no whole number of bytes
    needs = _needs(need_bytes, basis, budget_bytes, budget_gb)
    first = f"models.{role} ({source}) {needs}, and the budget is {budget_gb:.2f} GB ({setting})"
    remedies = []
    if need_bytes < reach_bytes:
        remedies.append(f"give it more with device.memory_gb ({reach_bytes / GIB:.1f} GB are to be had)")
    profile = _profile_for(reach_bytes / GIB, on_cpu)
    if profile is not None:
        remedies.append(f"take {profile}")
    remedies.append(f"set models.{role} to a smaller model")
    return StartError("budget-too-small", f"{first}: {', or '.join(remedies)}")


def _needs(need_bytes: int, basis: Basis, budget_bytes: int, budget_gb: float) -> str:
    need_gb = math.ceil(100 * need_bytes / GIB) / 100
    if basis == "files" and need_bytes > budget_bytes:
        return f"needs about {need_gb:.2f} GB by its files"
    if basis == "measured":
        return f"needs {need_gb:.2f} GB with one item"
    return f"needs more than {budget_gb:.2f} GB" + (" with one item" if basis == "failed" else " while it loads")


def _profile_for(reach_gb: float, on_cpu: bool) -> str | None:
    """The largest profile whose budget can be had; on a card that is too small for any, that of the CPU."""
    if on_cpu:
        return "configs/cpu.toml" if reach_gb >= CPU_PROFILE_GB else None
    fitting = [card for card, budget_gb in PROFILES.items() if budget_gb <= reach_gb]
    return f"configs/gpu-{max(fitting)}gb.toml" if fitting else "configs/cpu.toml, which needs no card"
