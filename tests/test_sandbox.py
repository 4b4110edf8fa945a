"""What a decoder may do and may not, tried in processes that are confined for good."""

import errno
import json
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from engine import sandbox
from engine.children import Child
from engine.config import Config
from engine.rundir import endpoints_in, run_directory
from engine.sandbox import PROCESS_NAMES, allow_cpu, deny_network, network_refusal
from engine.worker import WorkerSpec
from stages.options import DecodeOptions
from transport.messages import Drain, Grant, Join, Probe, Probed, Ready, TaskKey, ToEngine, ToSupervisor
from transport.sockets import Channel

ROOT = Path(__file__).parents[1]

CONFINED = """
import json, sys
from engine import sandbox
from stages.options import DecodeOptions
sandbox.confine(DecodeOptions(**json.loads(sys.argv[1])))
def run():
    {code}
print(json.dumps(run()))
"""


@pytest.fixture(scope="module")
def refusal() -> str | None:
    """Why the network cannot be taken here."""
    return network_refusal()


@pytest.fixture
def namespaces(refusal: str | None) -> None:
    """For tests of what only some systems allow."""
    if refusal is not None:
        pytest.skip(refusal)


def confined(code: str, *prefix: str, **options: Any) -> Any:
    """What the body of a function gives in a confined process, through JSON."""
    done = run_confined(code, *prefix, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run_confined(code: str, *prefix: str, **options: Any) -> subprocess.CompletedProcess[str]:
    script = "\n".join((*prefix, CONFINED.format(code=code.strip().replace("\n", "\n    "))))
    command = [sys.executable, "-c", script, json.dumps({"memory_gb": None, **options})]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)


# --- the network ------------------------------------------------------------------------------------------------------

CONNECT = """
import socket
try:
    socket.create_connection(("127.0.0.1", {port}), timeout=60).close()
except OSError as error:
    return error.errno
return None
"""


@pytest.fixture
def port() -> Any:
    """A port of this machine that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.usefixtures("namespaces")
def test_a_confined_process_reaches_no_network(port: int) -> None:
    assert confined(CONNECT.format(port=port), network="deny") == errno.ENETUNREACH
    assert confined("return sandbox.notes()", network="deny") == []


def test_the_network_may_be_allowed(port: int) -> None:
    assert confined(CONNECT.format(port=port), network="allow") is None
    assert confined("return sandbox.notes()", network="allow") == []


# As for a process without privileges, whoever runs the tests: the network alone is refused to it.
UNPRIVILEGED = """
from engine import sandbox
real = sandbox._unshare
def unshare(flags):
    if flags == sandbox.CLONE_NEWNET:
        raise PermissionError(1, "Operation not permitted")
    real(flags)
sandbox._unshare = unshare
"""


@pytest.mark.usefixtures("namespaces")
def test_without_privileges_a_user_namespace_serves(port: int, tmp_path: Path) -> None:
    """And what is readable stays so, though the process is nobody in there."""
    file = tmp_path / "private"
    file.write_text("content")
    file.chmod(0o400)
    assert confined(CONNECT.format(port=port), UNPRIVILEGED) == errno.ENETUNREACH
    assert confined("return sandbox.notes()", UNPRIVILEGED) == []
    assert confined(f"return open({str(file)!r}).read()", UNPRIVILEGED) == "content"


# A filter of system calls (seccomp(2)) as containers have one: unshare fails with EPERM, all else is allowed.
FILTER = """
import ctypes, struct
def instruction(code, jump_true, jump_false, value):
    return struct.pack("HBBI", code, jump_true, jump_false, value)
code = ctypes.create_string_buffer(
    instruction(0x20, 0, 0, 0)  # the number of the system call
    + instruction(0x15, 0, 1, {number})
    + instruction(0x06, 0, 0, 0x00050001)  # SECCOMP_RET_ERRNO | EPERM
    + instruction(0x06, 0, 0, 0x7FFF0000)  # SECCOMP_RET_ALLOW
)
program = struct.pack("HxxxxxxP", 4, ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
zero = ctypes.c_ulong(0)
assert libc.prctl(38, ctypes.c_ulong(1), zero, zero, zero) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, ctypes.c_ulong(2), ctypes.c_char_p(program), zero, zero) == 0, ctypes.get_errno()
"""
UNSHARE_NUMBERS = {"x86_64": 272, "aarch64": 97}


@pytest.mark.skipif(platform.machine() not in UNSHARE_NUMBERS, reason="the number of unshare is not known here")
def test_where_the_system_forbids_it_the_network_stays_and_a_note_says_so(port: int) -> None:
    forbidden = FILTER.format(number=UNSHARE_NUMBERS[platform.machine()])
    assert confined(CONNECT.format(port=port), forbidden, network="deny") is None
    (note,) = confined("return sandbox.notes()", forbidden, network="deny")
    assert note.startswith("decoders keep the network: unshare is not allowed here (Operation not permitted)")
    assert "\n" not in note
    assert "decode.network" in note


def test_nothing_is_tried_while_other_threads_run() -> None:
    """A namespace is a thread's own: the others would keep the network."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        refusal = deny_network(unshare=lambda flags: pytest.fail("unshare was called"))
    finally:
        done.set()
        thread.join()
    assert refusal is not None
    assert "other threads" in refusal


def dies(answer: Connection) -> None:
    """Stands in for a process that is killed for its system call."""
    os._exit(31)


def test_a_system_that_kills_for_it_is_told_from_one_that_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_try_out", dies)
    refusal = network_refusal()
    assert refusal is not None
    assert "exit code 31" in refusal


def test_a_child_has_one_thread_when_it_is_confined() -> None:
    """numpy starts threads when it is imported: what a child imports before its role must do without."""
    script = "import engine.cli, engine.worker; from engine.sandbox import thread_count; print(thread_count())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]


# --- memory, files, processor time ------------------------------------------------------------------------------------


def test_a_file_can_be_read_and_not_written(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("content")
    code = f"""
    try:
        open({str(tmp_path / "target")!r}, "w", buffering=1).write("something\\n")
    except OSError as error:
        return [error.errno, open({str(tmp_path / "source")!r}).read()]
    """
    assert confined("\n".join(line[4:] for line in code.strip("\n").splitlines())) == [errno.EFBIG, "content"]
    assert (tmp_path / "target").read_text() == ""


def test_memory_is_limited() -> None:
    code = "import mmap\ntry:\n    mmap.mmap(-1, {size})\nexcept OSError as error:\n    return error.errno\nreturn None"
    assert confined(code.format(size=2**30), memory_gb=1.5) is None
    assert confined(code.format(size=2**31), memory_gb=1.5) == errno.ENOMEM
    assert confined(code.format(size=2**31)) is None
    done = run_confined("return len(bytearray(2**31))", memory_gb=1.5)
    assert done.stderr.splitlines()[-1] == "MemoryError"


def test_limits_are_hard_and_no_core_is_written() -> None:
    kinds = "RLIMIT_CORE", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_AS"
    code = f"import resource\nreturn [resource.getrlimit(getattr(resource, kind)) for kind in {kinds!r}]"
    core, size, files, memory = confined(code, memory_gb=2.0)
    assert core == [0, 0]
    assert size == [0, 0]
    assert files == [256, 256]
    assert memory == [2**31, 2**31]


def test_a_stricter_limit_of_the_system_stays() -> None:
    before = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))"
    code = "import resource\nreturn resource.getrlimit(resource.RLIMIT_NOFILE)"
    assert confined(code, before) == [100, 100]


def test_privileges_cannot_be_gained() -> None:
    status = confined("return open('/proc/self/status').read()")
    assert "NoNewPrivs:\t1\n" in status


def test_a_task_that_uses_up_its_processor_time_is_killed() -> None:
    before = "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)"  # as a parent could hand it down
    done = run_confined("sandbox.allow_cpu(1 / 60)\nwhile True:\n    pass", before)
    assert done.returncode == -signal.SIGXCPU


def test_processor_time_is_granted_from_now_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder lives for months: what earlier tasks have used does not count."""
    limits: list[Any] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, value: limits.append((kind, value)))
    allow_cpu(2.0, used_seconds=lambda: 0.5)
    allow_cpu(2.0, used_seconds=lambda: 4000.5)
    allow_cpu(None, used_seconds=lambda: 5000.0)
    assert [kind for kind, _ in limits] == [resource.RLIMIT_CPU] * 3
    assert [soft for _, (soft, _) in limits] == [121, 4121, resource.RLIM_INFINITY]
    assert {hard for _, (_, hard) in limits} == {resource.RLIM_INFINITY}


def test_processor_time_never_exceeds_the_limit_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[Any] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, 60))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, value: limits.append(value))
    allow_cpu(2.0, used_seconds=lambda: 0.0)
    allow_cpu(None, used_seconds=lambda: 0.0)
    assert limits == [(60, 60), (60, 60)]


# --- a real decoder ---------------------------------------------------------------------------------------------------


class Decoder:
    """A decoder process, and the supervisor's and the engine's ends of its sockets."""

    def __init__(self, context: Any, directory: Path, options: DecodeOptions) -> None:
        endpoints = endpoints_in(directory)
        self.control: Channel[Any] = Channel.bind(context, endpoints.control, ToSupervisor)
        self.items: Channel[Any] = Channel.bind(context, endpoints.items, ToEngine)
        config = msgspec.structs.replace(Config(), decode=options)
        self.child = Child(WorkerSpec(role="decoder", index=0, generation=1, endpoints=endpoints, config=config))

    def wait_for(self, kind: type[Any], channel: Channel[Any]) -> Any:
        while True:
            received = channel.receive(timeout_ms=120_000)
            assert received is not None, self.child.last_words()
            if isinstance(received.message, kind):
                return received.message

    def close(self) -> None:
        self.child.kill()
        self.child.close()
        self.control.close()
        self.items.close()


@pytest.fixture
def decoder(tmp_path: Path) -> Any:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with run_directory(str(tmp_path)) as directory:
        decoder = Decoder(context, directory, DecodeOptions(memory_gb=8.0))
        yield decoder
        decoder.close()
    context.term()


def test_a_real_decoder_works_in_confinement(decoder: Decoder, sample_video: Path, refusal: str | None) -> None:
    """Its libraries load, its sockets carry, files open; and it is named, limited and without network."""
    decoder.wait_for(Ready, decoder.control)
    decoder.wait_for(Join, decoder.items)
    process = Path(f"/proc/{decoder.child.process.pid}")
    assert (process / "comm").read_text() == "sluice-decoder\n"
    limits = {line[:25].strip(): line[26:].split()[:2] for line in (process / "limits").read_text().splitlines()}
    assert limits["Max address space"] == [str(8 * 2**30)] * 2
    assert limits["Max file size"] == ["0", "0"]
    if refusal is None:
        assert (process / "ns" / "net").readlink() != Path("/proc/self/ns/net").readlink()
    decoder.items.send(Grant(credit_bytes=2**26), to=decoder.child.identity)
    decoder.control.send(Probe(key=TaskKey(1, 1), path=bytes(sample_video)), to=decoder.child.identity)
    probed = decoder.wait_for(Probed, decoder.control)
    assert probed.media.video is not None
    decoder.control.send(Drain(), to=decoder.child.identity)
    decoder.child.process.join(120)
    assert decoder.child.process.exitcode == 0


def test_names_fit_where_the_system_keeps_them() -> None:
    assert all(len(name.encode()) <= 15 for name in PROCESS_NAMES.values())
    assert len(set(PROCESS_NAMES.values())) == len(PROCESS_NAMES) == 4
