"""The doctor command: device, packages, models, store, limits, and what the daemon needs: what is wrong, what to do."""

import os
import resource
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from engine.config import Config
from engine.errors import ConfigError
from engine.files import shown
from engine.hints import MAX_DIRECTORIES
from engine.ledger import ledger_path
from engine.loading import SIMULATED
from engine.locks import Held, hold
from engine.metrics import ADDRESS
from engine.mounts import is_network
from engine.nvml import driver_version
from engine.presence import LOCK_NAME, Presence, find
from engine.real_devices import cuda_trouble, open_device, resolve_device, torch_build
from engine.rundir import endpoints_in, run_directory
from engine.sandbox import network_refusal
from engine.watched import Root, roots_of
from stages.errors import SluiceError
from stages.qdrant import open_store
from stages.registry import list_models

PACKAGES = (
    "torch", "torchaudio", "av", "decord", "faster-whisper", "ctranslate2", "sentence-transformers", "transformers",
    "speechbrain", "pyzmq", "msgspec", "qdrant-client", "qdrant-edge-py", "nvidia-ml-py",
)  # fmt: skip
LEAST_OPEN_FILES = 1024  # an embedded store of a few million points holds several hundred files open
LEAST_FREE_GB = 1.0
LEAST_DECODER_GB = 5.0  # a CUDA build of torch takes 3.5 GB of address space for its libraries alone, another 0.9
MAX_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")
COUNT_SECONDS = 10.0  # for counting directories


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: str  # ok | warning | problem
    detail: str


def examine(config: Config) -> list[Finding]:
    """Look at everything that a run and the daemon need."""
    daemon = find(config)
    return [
        _python(),
        *_packages(),
        *_device(config),
        *_models(config),
        _store(config, daemon),
        _run_directory(config),
        *_limits(config),
        *_decoders(config),
        *_roots(config),
        _daemon(config, daemon),
        _metrics(config, daemon),
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


def _store(config: Config, daemon: Presence | None) -> Finding:
    where = config.store.url or config.store.path
    try:
        store = open_store(config.store, os.environ.get(config.store.api_key_env), read_only=True)
        try:
            counts = ", ".join(f"{store.count(name)} {name}" for name in ("frames", "speech", "voices"))
        finally:
            store.close()
    except SluiceError as error:
        if error.code == "store-locked" and daemon is not None:
            return Finding("store", "ok", f"{where}: open in the daemon, process {daemon.pid}")
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
    if config.store.url is None:
        yield _room("disk for the store", Path(config.store.path), LEAST_FREE_GB)
    spool_gb = config.store.spool_mb / 1000
    yield _room("disk for run.state", Path(config.run.state), LEAST_FREE_GB + spool_gb, "store.spool_mb and 1 GB")


def _room(what: str, directory: Path, least_gb: float, wanted: str = "") -> Finding:
    """Room on the disk where a directory is, or will be."""
    directory = directory.resolve()
    while not directory.exists():
        directory = directory.parent
    free_gb = shutil.disk_usage(directory).free / 1e9
    detail = f"{free_gb:.1f} GB free for {directory}"
    if free_gb >= least_gb:
        return Finding(what, "ok", detail)
    return Finding(what, "warning", f"{detail}; {least_gb:.1f} GB are wanted" + (f" ({wanted})" if wanted else ""))


# --- the daemon -------------------------------------------------------------------------------------------------------


def _decoders(config: Config) -> Iterator[Finding]:
    decode = config.decode
    if decode.network == "allow":
        yield Finding("decoders' network", "warning", 'decode.network = "allow": they parse files with the network on')
    else:
        refusal = network_refusal()
        yield Finding("decoders' network", "ok" if refusal is None else "warning", refusal or "cut off")
    if decode.memory_gb is None:
        yield Finding("decoders' memory", "warning", "no limit: set decode.memory_gb")
    elif decode.memory_gb < LEAST_DECODER_GB:
        few = f"decode.memory_gb = {decode.memory_gb:g} is address space, of which libraries take up to 3.5 GB"
        yield Finding("decoders' memory", "warning", f"{few}; set {LEAST_DECODER_GB:g} or more")
    else:
        yield Finding("decoders' memory", "ok", f"{decode.memory_gb:g} GB of address space each")


def _roots(config: Config) -> Iterator[Finding]:
    try:
        roots = roots_of(config.watch, config.run.extensions)
    except ConfigError as error:
        yield Finding("watched directories", "problem", error.message)
        return
    if not roots:
        yield Finding("watched directories", "ok", "none; the daemon needs watch.roots")
        return
    yield from (_root(root) for root in roots)
    yield _hints([root.path for root in roots if not _is_polled(root) and Path(os.fsdecode(root.path)).is_dir()])


def _root(root: Root) -> Finding:
    what = f"watched {shown(root.path)}"
    path = Path(os.fsdecode(root.path))
    if not path.exists():
        return Finding(what, "warning", "is not there; the daemon waits for it")
    if not path.is_dir():
        return Finding(what, "problem", "is no directory; name one in watch.roots")
    if not os.access(path, os.R_OK | os.X_OK):
        return Finding(what, "problem", "cannot be read; permit it to the user who runs the daemon")
    if _is_polled(root):
        why = "on a network mount" if root.poll == "auto" else 'poll = "always"'
        return Finding(what, "ok", f"{why}: scanned every {root.poll_seconds:g} s (watch.poll_seconds)")
    return Finding(what, "ok", f"changes are told by the system; scanned every {root.scan_seconds:g} s all the same")


def _is_polled(root: Root) -> bool:
    return root.poll == "always" or (root.poll == "auto" and is_network(root.path))


def _hints(roots: Sequence[bytes]) -> Finding:
    """Whether the system lets all directories be watched. Without that they are scanned, as network mounts are."""
    allowed = int(MAX_WATCHES.read_text("ascii")) if MAX_WATCHES.exists() else MAX_DIRECTORIES
    deadline = time.monotonic() + COUNT_SECONDS
    count = 0
    for _ in (step for root in roots for step in os.walk(root)):
        count += 1
        if count > allowed:
            advice = f"raise fs.inotify.max_user_watches (sysctl) above {allowed}, or they are found by scans alone"
            return Finding("inotify", "warning", f"more than {allowed} directories below watch.roots; {advice}")
        if time.monotonic() > deadline:
            return Finding("inotify", "ok", f"{count} directories counted in {COUNT_SECONDS:g} s, of {allowed} allowed")
    return Finding("inotify", "ok", f"{count} directories of {allowed} allowed")


def _daemon(config: Config, daemon: Presence | None) -> Finding:
    """Who holds what a daemon needs for itself: run.state, and the ledger."""
    if daemon is not None:
        return Finding("daemon", "ok", f"runs: process {daemon.pid} ({daemon.command})")
    ledger = ledger_path(config)
    locks = (Path(config.run.state) / LOCK_NAME, "run.state"), (ledger.with_name(f"{ledger.name}.lock"), "the ledger")
    for path, what in locks:
        if path.exists():
            try:
                hold(path, what).close()
            except Held as held:
                return Finding("daemon", "warning", held.message)
    return Finding("daemon", "ok", "none runs here")


def _metrics(config: Config, daemon: Presence | None) -> Finding:
    port = config.daemon.metrics_port
    if port == 0:
        return Finding("metrics", "ok", "daemon.metrics_port = 0: none")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what its last run left does not matter
        try:
            listener.bind((ADDRESS, port))
        except OSError as error:
            if daemon is not None:
                return Finding("metrics", "ok", f"port {port} of {ADDRESS} is taken, while a daemon runs")
            detail = f"port {port} of {ADDRESS}: {error.strerror}; set daemon.metrics_port (0: none)"
            return Finding("metrics", "warning", detail)
    return Finding("metrics", "ok", f"port {port} of {ADDRESS} is free")
