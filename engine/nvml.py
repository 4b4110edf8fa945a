"""What NVIDIA's management library (NVML, through nvidia-ml-py) knows of a device and that torch does not.

It is not there everywhere: containers may lack the library, or hide the process numbers; MIG and WSL give no figures of
processes. So every question may go unanswered.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Answer = TypeVar("Answer")

KERNEL_MODULE = Path("/proc/driver/nvidia/version")


class NvmlMissing(Exception):
    """NVML cannot be asked about this device. The message says why, in NVML's words."""


class Nvml:
    """One device. Found by its UUID: NVML's numbers know nothing of CUDA_VISIBLE_DEVICES."""

    def __init__(self, uuid: str) -> None:
        """uuid: CUDA's, five groups of hexadecimal digits; of a MIG device it is that of the instance.

        Raises:
            NvmlMissing: no library, another version than the driver's, no permission, no such device.
        """
        import pynvml

        self._handle = _asked(lambda: self._find(pynvml, uuid))

    @staticmethod
    def _find(pynvml: Any, uuid: str) -> Any:
        pynvml.nvmlInit()
        try:
            return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except pynvml.NVMLError_NotFound:
            return pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")

    def free_bytes(self) -> int:
        """Memory that nobody holds. Unlike CUDA's figure, asking for it makes no context.

        Raises:
            NvmlMissing: the device does not tell.
        """
        import pynvml

        return int(_asked(lambda: pynvml.nvmlDeviceGetMemoryInfo(self._handle)).free)

    def process_bytes(self) -> int | None:
        """Device memory of this process, context and libraries included; None when NVML does not list it (the process
        numbers of a container are not the host's) or lists it without a figure (MIG, WSL).

        Raises:
            NvmlMissing: the device does not tell.
        """
        import pynvml

        listed = _asked(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle))
        figures = [process.usedGpuMemory for process in listed if process.pid == os.getpid()]
        known = [figure for figure in figures if figure is not None]
        return sum(known) if known else None


def driver_version() -> str | None:
    """The NVIDIA driver's version, such as "580.95.05"; None when there is none to be found."""
    import pynvml

    def ask() -> str:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())

    try:
        return _asked(ask)
    except NvmlMissing:
        # A library of another version than the loaded module's answers nothing: then the module itself says it.
        text = KERNEL_MODULE.read_text("utf-8") if KERNEL_MODULE.exists() else ""
        found = re.search(r"Kernel Module(?: for \S+)?\s+([\d.]+)", text)
        return found[1] if found else None


def _asked(question: Callable[[], Answer]) -> Answer:
    import pynvml

    try:
        return question()
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError) as error:
        raise NvmlMissing(str(error).rstrip(".")) from error
