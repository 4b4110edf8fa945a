"""What every child process has: a log that its parent reads, a parent whose death it notices, a named way to end.

Children ignore SIGINT and SIGTERM: a terminal or a service manager signals the whole group, and only the supervisor may
decide between draining (a message) and stopping now (SIGKILL, which no invariant minds).
"""

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import zmq

from engine import failpoints
from engine.config import Config
from engine.errors import ExitCode
from engine.heap import keep_heap_whole, share_one_heap
from engine.sandbox import confine, name_process
from stages.errors import SluiceError
from transport.messages import Condemned, EngineLost, Hello, Message, Suspect

if TYPE_CHECKING:
    # numpy comes with it, and threads with numpy: not before a decoder is confined.
    from transport.sockets import Channel

# Read by libraries when they are imported; what the user has set stands.
THREADS = {
    "OPENBLAS_NUM_THREADS": "1",  # NumPy's products are small here: a second thread spins for longer than they take
    # How often OpenMP's threads (torch's and CTranslate2's) look for work before they sleep. libgomp's own 300,000 are
    # milliseconds behind each of some hundred steps of a batch, on a core that a decoder could use.
    "GOMP_SPINCOUNT": "1000",
}

_contexts: list["zmq.Context[zmq.Socket[bytes]]"] = []  # of this process's control sockets: they hold its last words


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Where the sockets are, and whether what happens behind them is recorded."""

    control: str  # supervisor binds; every child connects
    items: str  # engine binds; decoders connect
    points: str  # consumer binds; the engine connects
    traced: bool = False  # each child tells the supervisor what it does (engine/trace.py), on the first of these


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is told at its start."""

    role: str
    index: int
    generation: int  # counts restarts, so that a successor is not mistaken for the dead
    endpoints: Endpoints
    config: Config
    suspects: tuple[Suspect, ...] = ()  # to the engine: items to be run alone (engine/restarts.py)
    condemned: tuple[Condemned, ...] = ()  # to the engine: items not to be run at all, and why
    serves_queries: bool = False  # to the engine: it answers EmbedQuery

    @property
    def identity(self) -> bytes:
        """Name of the child on every socket."""
        return f"{self.role}-{self.index}.{self.generation}".encode()


def connect_control(
    context: "zmq.Context[zmq.Socket[bytes]]", spec: WorkerSpec, receives: object
) -> "Channel[Message]":
    """Connect to the supervisor and say hello."""
    from transport.sockets import Channel

    _contexts.append(context)
    channel: Channel[Message] = Channel.connect(context, spec.endpoints.control, receives, spec.identity)
    channel.send(Hello(role=spec.role, index=spec.index, pid=os.getpid()))
    return channel


def leave(control: "Channel[Any]", words: EngineLost, code: ExitCode) -> NoReturn:
    """Say the last words, wait until they are out, and end this process at once.

    No destructor runs: those of a device library hang or abort when its context is poisoned. `control` must be the only
    socket of its ZeroMQ context, which ends here: then its thread has given all to the kernel, or tried for LINGER_MS.
    """
    control.send(words)
    control.close()
    control.socket.context.term()
    print(f"{words.code}: {words.message}", file=sys.stderr, flush=True)
    os._exit(code)


def leave_in_order() -> NoReturn:
    """End this process at once when its role is done, its sockets are closed and their last words are out.

    To take an interpreter with torch and its kind apart takes seconds of processor time and gives back nothing that the
    end of the process does not, and the supervisor waits for it: engine, decoders and consumer end one after the other.
    """
    for context in _contexts:
        context.destroy()  # waits for LINGER_MS at most
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ExitCode.OK)


def child_main(encoded_spec: bytes, parent: Connection, log: Connection) -> None:
    """Entry of every child process: prepare it, run its role, leave with a named exit code."""
    os.dup2(log.fileno(), sys.stderr.fileno())
    os.dup2(log.fileno(), sys.stdout.fileno())
    log.close()
    faulthandler.enable()
    failpoints.reach(failpoints.DURING_START)
    keep_heap_whole()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.excepthook = _crash
    for name, value in THREADS.items():
        os.environ.setdefault(name, value)
    spec = msgspec.msgpack.decode(encoded_spec, type=WorkerSpec)
    name_process(spec.role)
    if spec.role == "engine" and spec.config.device.memory_gb is None:
        share_one_heap()
    if spec.role == "decoder":
        os.nice(spec.config.decode.nice)
        confine(spec.config.decode)  # before the first thread, and before the imports of the role
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True, name="parent-watch").start()
    try:
        _role_main(spec.role)(spec)
    except SluiceError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr, flush=True)
        sys.exit(ExitCode.STORE_LOST if error.code == "store-lost" else ExitCode.CHILD_START_FAILED)
    leave_in_order()


def _role_main(role: str) -> Callable[[WorkerSpec], None]:
    # Imported here: each process loads only what its role needs.
    match role:
        case "decoder":
            from engine.producer import decoder_main

            return decoder_main
        case "engine":
            from engine.process import engine_main

            return engine_main
        case "consumer":
            from engine.consumer import consumer_main

            return consumer_main
    raise ValueError(f"there is no role {role!r}")


def _exit_with_parent(parent: Connection) -> None:
    """Wait for the pipe to close: only the supervisor holds its other end, so it closes when the supervisor is gone."""
    try:
        parent.recv_bytes()
    except (EOFError, OSError):
        os._exit(ExitCode.PARENT_DIED)


def _crash(args: threading.ExceptHookArgs) -> None:
    """An exception in a thread ends the process: half a process would hang the others."""
    traceback: TracebackType | None = args.exc_traceback
    sys.excepthook(args.exc_type, args.exc_value or args.exc_type(), traceback)
    sys.stderr.flush()
    os._exit(ExitCode.CHILD_CRASHED)
