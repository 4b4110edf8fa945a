"""Which device the models run on, and opening it."""

import os
import re
import warnings

from engine.cuda_device import CudaDevice
from engine.errors import ConfigError
from engine.host_device import HostDevice

ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # the second is the older name, and goes first
CUDA_NAME = re.compile(r"cuda(?::(\d+))?")
TOO_OLD = re.compile(r"too old \(found version (\d+)\)")


def resolve_device(name: str) -> str:
    """torch's name of the device that `device.name` asks for: "cpu" or "cuda:N".

    Raises:
        ConfigError: CUDA is asked for and there is none, or the name is no device.
    """
    if name == "cpu":
        return "cpu"
    found = CUDA_NAME.fullmatch("cuda:0" if name == "auto" else name)
    if found is None:
        raise ConfigError("bad-value", f'device.name = "{name}": expected "auto", "cpu", "cuda" or "cuda:N"')
    trouble = cuda_trouble()
    if trouble is not None:
        if name == "auto":
            return "cpu"
        raise ConfigError("no-cuda", f'device.name = "{name}", but {trouble}, or set device.name = "cpu"')
    import torch

    index, count = int(found[1] or 0), torch.cuda.device_count()
    if index >= count:
        raise ConfigError("no-cuda", f'device.name = "{name}", but the last device is cuda:{count - 1}')
    return f"cuda:{index}"


def open_device(name: str) -> HostDevice | CudaDevice:
    """Open a device by its resolved name. On CUDA: before any model is loaded, or its memory counts as another's.

    Raises:
        StartError: CUDA does not start on it, or this torch has no code for it.
    """
    if name == "cpu":
        return HostDevice()
    prepare_allocator()
    return CudaDevice(int(name.removeprefix("cuda:")))


def prepare_allocator() -> None:
    """Let torch's allocator grow its segments rather than add new ones: batches of changing size leave fewer holes. It
    reads this when it first allocates; what the user has set stands.
    """
    if not any(name in os.environ for name in ALLOCATOR_VARIABLES):
        os.environ[ALLOCATOR_VARIABLES[0]] = "expandable_segments:True"


def torch_build() -> str:
    """torch's version, and the CUDA it is built for."""
    import torch

    cuda = "without CUDA" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}"
    return f"{torch.__version__}, built {cuda}"


def cuda_trouble() -> str | None:
    """Why CUDA cannot be used and what mends it, to follow "but"; None when it can."""
    import torch

    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) is built without CUDA: install its CUDA build (see the README)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what is said here
        if torch.cuda.is_available():
            return None
    # Asked whether it is there, CUDA only says no; made to start, it says why (c10/cuda/CUDAFunctions.cpp).
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        return _cause(str(error), torch.version.cuda)
    return None


def _cause(text: str, built_for: str) -> str:
    if (found := TOO_OLD.search(text)) is not None:
        version = int(found[1])
        supported = f"{version // 1000}.{version % 1000 // 10}"
        return (
            f"the NVIDIA driver is too old (it supports CUDA {supported}, this torch is built for CUDA {built_for}): "
            "update the driver"
        )
    if "Found no NVIDIA driver" in text:
        return "there is no NVIDIA driver: install one (in a container: start it with the GPU)"
    if "No CUDA GPUs" in text:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        because = "" if visible is None else f' (CUDA_VISIBLE_DEVICES is "{visible}")'
        return f"the driver shows no device{because}: look at nvidia-smi"
    return f"CUDA does not start ({text.splitlines()[0].rstrip('.')}): look at nvidia-smi"
