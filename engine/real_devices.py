"""Which device the models run on."""

from engine.errors import ConfigError


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
