"""How child processes end."""

import os
import subprocess
import sys
from pathlib import Path

import zmq

from engine.children import Child
from engine.config import load_config
from engine.rundir import endpoints_in, run_directory
from engine.worker import WorkerSpec
from transport.messages import DecoderStats, Drain, Hello, Probe, Ready, TaskFailed, TaskKey, ToEngine, ToSupervisor
from transport.sockets import Channel

ROOT = Path(__file__).parents[1]
ENDING = """
import atexit
from engine.worker import leave_in_order
atexit.register(print, "taken apart")
print("said")
leave_in_order()
"""


def test_a_process_that_is_done_is_not_taken_apart() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "said\n"


def test_the_last_words_of_a_child_that_drains_are_heard(tmp_path: Path) -> None:
    config = load_config(settings=["models.speech=off", "models.voice=off", "models.text=off", "decode.nice=3"])
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with run_directory(str(tmp_path)) as directory:
        endpoints = endpoints_in(directory)
        control: Channel[object] = Channel.bind(context, endpoints.control, ToSupervisor)  # type: ignore[type-var]
        items: Channel[object] = Channel.bind(context, endpoints.items, ToEngine)  # type: ignore[type-var]
        child = Child(WorkerSpec(role="decoder", index=0, generation=1, endpoints=endpoints, config=config))
        heard: list[type] = []
        niceness: list[int] = []
        while child.is_alive or control.socket.poll(0):
            received = control.receive(timeout_ms=100)
            if received is None:
                continue
            heard.append(type(received.message))
            if isinstance(received.message, Ready):
                niceness.append(os.getpriority(os.PRIO_PROCESS, child.pid))
                control.send(Probe(key=TaskKey(1, 0), path=bytes(tmp_path / "absent.mp4")), to=child.identity)
                control.send(Drain(), to=child.identity)
        child.close()
        assert child.process.exitcode == 0
        assert niceness == [min(19, os.getpriority(os.PRIO_PROCESS, 0) + 3)], "others go first"
        assert [kind for kind in heard if kind is not DecoderStats] == [Hello, Ready, TaskFailed]
        assert heard[-1] is DecoderStats  # sent behind each task
        items.close()
        control.close()
    context.term()
