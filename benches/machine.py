"""The machine that a report was measured on."""

import os
import platform
from importlib.metadata import version

import psutil

from benches.report import Machine
from engine.host_memory import processor_name

PACKAGES = (
    "torch",
    "av",
    "decord",
    "ctranslate2",
    "faster-whisper",
    "sentence-transformers",
    "qdrant-edge-py",
    "pyzmq",
)


def machine(device: str = "cpu") -> Machine:
    """As it is now."""
    cores = len(os.sched_getaffinity(0))
    return Machine(
        processor=processor_name() or platform.machine(),
        cores=cores,
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        system=f"{platform.system()} {platform.release().split('-')[0]}",
        python=platform.python_version(),
        packages={name: version(name) for name in PACKAGES},
        device=device,
        load_before=round(os.getloadavg()[0] / cores, 2),
    )
