"""Which device, and the models on it. Runs in the engine process (and in `search`, which is its own)."""

import threading
from dataclasses import dataclass

from tqdm import tqdm

from engine.config import Config
from engine.errors import ConfigError
from stages.base import Model
from stages.image_model import ImageModel
from stages.registry import configured, load
from transport.messages import FrameFormat


@dataclass(frozen=True, slots=True)
class LoadedModels:
    """Every model that is not off."""

    by_role: dict[str, Model]
    frame_format: FrameFormat | None  # what the image model takes; None when it is off


def resolve_device(name: str) -> str:
    """torch's name of the device that `device.name` asks for.

    Raises:
        ConfigError: CUDA is asked for and there is none, or the name is no device.
    """
    import torch

    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return "cpu"
    if not name.startswith("cuda"):
        raise ConfigError("bad-value", f'device.name = "{name}": expected "auto", "cpu", "cuda" or "cuda:N"')
    if not torch.cuda.is_available():
        raise ConfigError(
            "no-cuda",
            f'device.name = "{name}", but torch sees no CUDA device; set device.name = "cpu", or mend the driver',
        )
    index = int(name.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        raise ConfigError("no-cuda", f'device.name = "{name}", but there are only {torch.cuda.device_count()} devices')
    return f"cuda:{index}"


def load_models(config: Config, device: str) -> LoadedModels:
    """Load all models of the configuration, one after the other.

    Raises:
        ModelError: one is missing, of the wrong kind or damaged; the message says which and what to do.
    """
    # The libraries' progress bars share a lock between processes by default: a semaphore that a killed process leaks.
    tqdm.set_lock(threading.RLock())
    by_role: dict[str, Model] = {
        role: load(role, config.models, config.speech, device) for role, _ in configured(config.models)
    }
    image = by_role.get("image")
    return LoadedModels(by_role, image.frame_format if isinstance(image, ImageModel) else None)


def device_bytes(device: str) -> int:
    """Device memory that this process holds now, CTranslate2's included, as the driver counts it; 0 on the CPU."""
    if not device.startswith("cuda"):
        return 0
    import os

    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(int(device.partition(":")[2] or 0))
    used = [
        process.usedGpuMemory or 0
        for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        if process.pid == os.getpid()
    ]
    return sum(used)
