"""What a decoder may do: it parses files that nobody vouches for, with libraries that have had holes.

No network, no file written, so much memory, so much processor time a task, no core file, no privileges gained. All this
is put on before the first thread starts and the heavy libraries come: a namespace belongs to a thread, and only those
that start later share it. What the system does not allow is told by `notes`, and the decoder works without it.
"""

import ctypes
import math
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from stages.options import DecodeOptions

PR_SET_NAME = 15  # linux/prctl.h
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWUSER = 0x10000000  # linux/sched.h
CLONE_NEWNET = 0x40000000

# Of /proc/PID/comm, 15 bytes at most: ps and top show them, and tell the processes apart.
PROCESS_NAMES = {
    "supervisor": "sluice-superv",
    "decoder": "sluice-decoder",
    "engine": "sluice-engine",
    "consumer": "sluice-consum",
}

# Sockets, a medium, its libraries' own: a busy decoder holds about 25. Ten times that is a leak.
OPEN_FILES = 256

_notes: list[str] = []

Unshare = Callable[[int], None]


def notes() -> tuple[str, ...]:
    """What the system did not allow to this process, for people; empty where it is confined in full."""
    return tuple(_notes)


def name_process(role: str) -> None:
    """Give this process the name of its role, as ps, top and /proc/PID/comm show it. role: a key of PROCESS_NAMES."""
    _prctl(PR_SET_NAME, PROCESS_NAMES[role].encode())


def confine(options: DecodeOptions) -> None:
    """Confine this process for good. To be called while it has one thread, and before numpy and torch are imported."""
    if options.network == "deny" and (refusal := deny_network()) is not None:
        _notes.append(refusal)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)  # a parent that ignores it would hand that down: it must kill
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    if options.memory_gb is not None:
        _limit(resource.RLIMIT_AS, int(options.memory_gb * 2**30))
    sys.dont_write_bytecode = True  # each attempt would only fail
    # A thread for each core, at the import of numpy, that nothing here uses: 70 MB of address space each.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"


def allow_cpu(minutes: float | None, used_seconds: Callable[[], float] | None = None) -> None:
    """Grant this process so much processor time from now on; None: without limit. At its end SIGXCPU kills.

    For each task anew: a decoder lives for months. used_seconds: what it has used since its start.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = resource.RLIM_INFINITY
    if minutes is not None:
        soft = math.ceil((used_seconds or _cpu_seconds)() + minutes * 60)
    resource.setrlimit(resource.RLIMIT_CPU, (_least(soft, hard), hard))


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _limit(kind: int, value: int) -> None:
    """Soft and hard, so that it cannot be raised again; one that is stricter already stays."""
    _, hard = resource.getrlimit(kind)
    value = _least(value, hard)
    resource.setrlimit(kind, (value, value))


def _least(one: int, other: int) -> int:
    """The stricter of two limits; RLIM_INFINITY is -1."""
    finite = [limit for limit in (one, other) if limit != resource.RLIM_INFINITY]
    return min(finite, default=resource.RLIM_INFINITY)


# --- the network ------------------------------------------------------------------------------------------------------


def deny_network(unshare: Unshare | None = None) -> str | None:
    """Put this process into a network namespace of its own, which holds nothing; returns why it could not be done.

    Sockets that are paths, such as ours, work across network namespaces. Who is not privileged needs a user namespace
    for it. No user is mapped into that, which some systems forbid: files are as readable as before, for the kernel goes
    by who the process is outside; only getuid() gives 65534 (user_namespaces(7)).
    """
    if thread_count() > 1:
        return "decoders keep the network: other threads were running already, from which it cannot be taken"
    unshare = unshare or _unshare
    try:
        unshare(CLONE_NEWNET)
    except OSError:
        try:
            unshare(CLONE_NEWUSER | CLONE_NEWNET)
        except OSError as error:
            return (
                f"decoders keep the network: unshare is not allowed here ({error.strerror}). Allow user namespaces (in "
                'a container: --security-opt seccomp=unconfined), or set decode.network = "allow"'
            )
    return None


def network_refusal() -> str | None:
    """Why decoders cannot be cut off from the network here; None where they can. A process is tried out for it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_try_out, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        refusal = ours.recv_bytes().decode()
    except EOFError:  # a filter of system calls that kills, for one
        process.join()
        refusal = f'who leaves the network dies here (exit code {process.exitcode}); set decode.network = "allow"'
    process.join()
    ours.close()
    return refusal or None


def _try_out(answer: Connection) -> None:
    answer.send_bytes((deny_network() or "").encode())


def thread_count() -> int:
    """Threads of this process, those of libraries too."""
    return len(list(Path("/proc/self/task").iterdir()))


def _unshare(flags: int) -> None:
    _check(ctypes.CDLL(None, use_errno=True).unshare(flags), "unshare")


def _prctl(option: int, argument: bytes | int) -> None:
    """All five arguments are given in full width, as variadic prctl(2) wants them."""
    value = ctypes.c_char_p(argument) if isinstance(argument, bytes) else ctypes.c_ulong(argument)
    zero = ctypes.c_ulong(0)
    _check(ctypes.CDLL(None, use_errno=True).prctl(option, value, zero, zero, zero), "prctl")


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), call)
