"""The doctor command: device, packages, models, store and limits; what is wrong and what to do."""

import os
import resource
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from engine.config import Config
from engine.loading import SIMULATED
from engine.nvml import driver_version
from engine.real_devices import cuda_trouble, open_device, resolve_device, torch_build
from engine.rundir import endpoints_in, run_directory
from stages.errors import SluiceError
from stages.qdrant import open_store
from stages.registry import list_models

PACKAGES = (
    "torch", "torchaudio", "av", "decord", "faster-whisper", "ctranslate2", "sentence-transformers", "transformers",
    "speechbrain", "pyzmq", "msgspec", "qdrant-client", "qdrant-edge-py", "nvidia-ml-py",
)  # fmt: skip
LEAST_OPEN_FILES = 1024  # an embedded store of a few million points holds several hundred files open
LEAST_FREE_GB = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: str  # ok | warning | problem
    detail: str


def examine(config: Config) -> list[Finding]:
    """Look at everything that a run needs."""
    return [
        _python(),
        *_packages(),
        *_device(config),
        *_models(config),
        _store(config),
        _run_directory(config),
        *_limits(config),
    ]


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding("python", "ok" if good else "problem", found if good else f"{found}; use CPython 3.11 to 3.13")


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding(f"package {name}", "ok", version(name))
        except PackageNotFoundError:
            yield Finding(f"package {name}", "problem", "not installed; run make setup")


def _device(config: Config) -> Iterator[Finding]:
    driver = driver_version()
    yield Finding("torch", "ok", f"{torch_build()}; NVIDIA driver: {driver or 'none'}")
    if config.device.name == SIMULATED:
        yield Finding("device", "warning", "simulated: the models run on the CPU, no card is used")
        return
    try:
        device = open_device(resolve_device(config.device.name))
    except SluiceError as error:
        yield Finding("device", "problem", error.message)
        return
    reading = device.read()
    detail = f"{device.name}, {device.label}, {reading.free_bytes / 1e9:.1f} of {device.total_bytes / 1e9:.1f} GB free"
    unused = cuda_trouble() if device.name == "cpu" and config.device.name == "auto" and driver is not None else None
    if unused is not None:
        yield Finding("device", "warning", f"{detail}; {unused}")
    else:
        yield Finding("device", "ok", detail)
    if device.name != "cpu" and not device.notes:
        yield Finding("device memory", "ok", "NVML says which part is this process's")
    for note in device.notes:
        yield Finding("device memory", "warning", note)


def _models(config: Config) -> Iterator[Finding]:
    for row in list_models(config.models):
        if row.state == "off":
            yield Finding(f"model {row.role}", "warning", f'models.{row.role} = "off": nothing of that kind is indexed')
        elif row.state != "ready":
            yield Finding(f"model {row.role}", "problem", row.message or row.state)
        elif row.label is not None and "(untrained)" in row.label:
            yield Finding(f"model {row.role}", "warning", f"{row.label}: its vectors mean nothing")
        else:
            yield Finding(f"model {row.role}", "ok", row.label or row.source)


def _store(config: Config) -> Finding:
    where = config.store.url or config.store.path
    try:
        store = open_store(config.store, os.environ.get(config.store.api_key_env), read_only=True)
        try:
            counts = ", ".join(f"{store.count(name)} {name}" for name in ("frames", "speech", "voices"))
        finally:
            store.close()
    except SluiceError as error:
        missing = error.code == "store-missing"
        return Finding("store", "ok" if missing else "problem", "not made yet" if missing else error.message)
    return Finding("store", "ok", f"{where}: {counts}")


def _run_directory(config: Config) -> Finding:
    try:
        with run_directory(config.run.directory) as directory:
            endpoints_in(directory)
            return Finding("run directory", "ok", str(directory.parent))
    except SluiceError as error:
        return Finding("run directory", "problem", error.message)


def _limits(config: Config) -> Iterator[Finding]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft < LEAST_OPEN_FILES
    yield Finding(
        "open files", "warning" if few else "ok", f"{soft}" + ("; raise it with ulimit -n 4096" if few else "")
    )
    directory = Path(config.store.path if config.store.url is None else config.run.state)
    while not directory.exists():
        directory = directory.parent if directory != directory.parent else Path()
    free_gb = shutil.disk_usage(directory).free / 1e9
    low = free_gb < LEAST_FREE_GB
    yield Finding("disk", "warning" if low else "ok", f"{free_gb:.1f} GB free for {directory.resolve()}")
