"""What the supervisor does with an engine's last words, and with one that comes back: no real engine here."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import zmq

from engine.config import Config, RunOptions
from engine.consumer import Consumer
from engine.errors import ExitCode, StartError
from engine.fleet import Patience
from engine.recovery import Recovery
from engine.worker import Endpoints, WorkerSpec
from stages.options import StoreOptions
from transport.messages import (
    Condemned,
    EngineLost,
    FrameFormat,
    Grant,
    Join,
    ModelInfo,
    Ready,
    Suspect,
    ToSupervisor,
)
from transport.sockets import Channel

ITEMS = tuple(Suspect(video_id="v", role="voice", start_seconds=at, end_seconds=at + 3.0) for at in (0.0, 3.0, 1 / 3))
LOST = EngineLost(code="device-lost", message="unspecified launch failure", suspects=ITEMS)
IMAGE = ModelInfo(role="image", name="clip", revision="1", dimension=64, untrained=True)
READY = Ready(
    role="engine", index=0, models=(IMAGE,), device="cuda:0", frame_format=FrameFormat(width=8, height=8, fit="crop")
)


class FakeEngine:
    """What Recovery sees of a child."""

    def __init__(self, exitcode: int) -> None:
        self.process = SimpleNamespace(exitcode=exitcode)
        self.failed_at_start = exitcode == ExitCode.CHILD_START_FAILED
        self.killed = False

    def last_words(self) -> str:
        return f"engine ended with exit code {self.process.exitcode}; last log line: bye"

    def failure(self) -> StartError:
        return StartError("no-model", "there is no such model")

    def kill(self) -> None:
        self.killed = True


class FakeFleet:
    """Remembers with what an engine was started."""

    def __init__(self, exitcode: int = ExitCode.DEVICE_LOST) -> None:
        self.engine = FakeEngine(exitcode)
        self.started: list[tuple[Any, Any]] = []

    def replace_engine(self, suspects: Any, condemned: Any) -> None:
        self.started.append((suspects, condemned))


def die(recovery: Recovery, fleet: Any, words: EngineLost | None = None) -> None:
    if words is not None:
        recovery.heard(words)
    recovery.died(fleet.engine, bear=False)
    recovery.check(fleet.engine, endless=False)
    recovery.restart(fleet)


def recovery_with(**options: Any) -> Recovery:
    return Recovery(Config(run=RunOptions(**options)))


def test_each_successor_is_told_of_all_that_came_before() -> None:
    recovery, fleet = recovery_with(), FakeFleet()
    alone = msgspec.structs.replace(LOST, suspects=ITEMS[1:2])
    condemned = Condemned(item=ITEMS[1], code=LOST.code, message=LOST.message)
    die(recovery, fleet, LOST)
    die(recovery, fleet, alone)
    recovery.progress()
    die(recovery, fleet)  # killed, without a word: what is known stays known
    assert fleet.started == [(ITEMS, ()), ((ITEMS[0], ITEMS[2]), (condemned,)), ((ITEMS[0], ITEMS[2]), (condemned,))]


def test_last_words_are_those_of_one_engine() -> None:
    recovery, fleet = recovery_with(), FakeFleet()
    recovery.heard(LOST)
    assert recovery.reason(fleet.engine) == "the engine was lost: device-lost: unspecified launch failure"  # type: ignore[arg-type]
    die(recovery, fleet)
    assert recovery.reason(fleet.engine).startswith("engine ended with exit code 13")  # type: ignore[arg-type]


def test_too_many_deaths_end_the_run_with_the_last_words_and_the_setting() -> None:
    recovery, fleet = recovery_with(engine_restarts=1), FakeFleet()
    die(recovery, fleet, LOST)
    with pytest.raises(
        StartError, match=r"unspecified launch failure; restarted 1 time .*run\.engine_restarts"
    ) as caught:
        die(recovery, fleet, LOST)
    assert caught.value.code == "engine-died"
    assert len(fleet.started) == 1


def test_an_engine_that_cannot_start_ends_the_run() -> None:
    fleet = FakeFleet(ExitCode.CHILD_START_FAILED)
    with pytest.raises(StartError, match="no such model"):
        die(recovery_with(), fleet)
    assert fleet.started == []


@pytest.mark.parametrize(
    ("exitcode", "words", "waits"),
    [
        (ExitCode.DEVICE_LOST, None, True),
        (ExitCode.RECYCLE, None, True),
        (ExitCode.DEVICE_LOST, LOST, False),
        (-9, None, False),
        (ExitCode.CHILD_CRASHED, None, False),
    ],
)
def test_words_are_waited_for_only_where_there_are_any(exitcode: int, words: Any, waits: bool) -> None:
    recovery, engine = recovery_with(), FakeEngine(exitcode)
    if words is not None:
        recovery.heard(words)
    assert recovery.is_heard_out(engine, Patience(60.0)) is not waits  # type: ignore[arg-type]
    assert recovery.is_heard_out(engine, Patience(-1.0)), "but not for ever"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"models": (msgspec.structs.replace(IMAGE, revision="2"),)}, "models-changed"),
        ({"frame_format": FrameFormat(width=9, height=8, fit="crop")}, "models-changed"),
        ({"device": "cpu"}, "device-lost"),
    ],
)
def test_an_engine_that_comes_back_as_another_is_refused(change: dict[str, Any], code: str) -> None:
    recovery = recovery_with()
    recovery.welcome(READY)
    recovery.welcome(READY)
    with pytest.raises(StartError) as caught:
        recovery.welcome(msgspec.structs.replace(READY, **change))
    assert caught.value.code == code


def test_an_engine_that_said_its_last_words_and_does_not_end_is_killed() -> None:
    recovery, fleet = recovery_with(stall_seconds=1e-9), FakeFleet()
    recovery.hurry(fleet)  # type: ignore[arg-type]
    assert not fleet.engine.killed
    recovery.heard(LOST)
    recovery.hurry(fleet)  # type: ignore[arg-type]
    assert fleet.engine.killed


def test_a_daemon_bears_what_a_run_over_files_does_not() -> None:
    recovery, engine = recovery_with(engine_restarts=1), FakeEngine(ExitCode.CHILD_START_FAILED)
    for _ in range(5):
        recovery.died(engine, bear=True)  # type: ignore[arg-type]
        recovery.check(engine, endless=True)  # type: ignore[arg-type]
    with pytest.raises(StartError, match="engine_restarts"):
        recovery.check(engine, endless=False)  # type: ignore[arg-type]


def test_only_deaths_without_a_word_and_without_progress_are_fruitless() -> None:
    recovery, engine = recovery_with(), FakeEngine(-9)
    recovery.died(engine, bear=False)  # type: ignore[arg-type]
    assert not recovery.is_fruitless
    recovery.died(engine, bear=False)  # type: ignore[arg-type]
    assert recovery.is_fruitless
    recovery.progress()
    assert not recovery.is_fruitless


# --- as processes do it -----------------------------------------------------------------------------------------------

LEAVE = """
import sys, msgspec, zmq
from engine.errors import ExitCode
from engine.worker import WorkerSpec, connect_control, leave
from transport.messages import EngineLost, ToEngineControl

spec = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=WorkerSpec)
control = connect_control(zmq.Context(), spec, ToEngineControl)
leave(control, EngineLost(code="device-lost", message="gone", suspects=spec.suspects), ExitCode.DEVICE_LOST)
print("never")
"""


def test_the_consumer_bears_that_an_engine_to_which_it_owes_credit_is_gone(tmp_path: Path) -> None:
    endpoints = Endpoints(control=f"ipc://{tmp_path}/control", items="", points=f"ipc://{tmp_path}/points")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    control: Channel[Any] = Channel.bind(context, endpoints.control, ToSupervisor)
    config = Config(store=StoreOptions(path=str(tmp_path / "store")))
    consumer = Consumer(WorkerSpec(role="consumer", index=0, generation=1, endpoints=endpoints, config=config), context)
    engine: Channel[Grant] = Channel.connect(context, endpoints.points, Grant, b"engine-0.3")
    engine.send(Join())
    consumer._credit.join(b"engine-0.2")  # it is dead
    while not (granted := engine.receive(0)):
        consumer._gather()
        consumer._grant()
    assert granted.message.credit_bytes == config.engine.results_mb * 1024 * 1024
    assert consumer._credit.take_owed() == {}, "nothing is owed to the dead"
    consumer.close()
    for channel in (control, engine):
        channel.close()
    context.term()


def test_last_words_arrive_whole_from_a_process_that_ends_at_once(tmp_path: Path) -> None:
    """Ten thousand suspects: far more than fits a socket's buffer."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    control: Channel[Any] = Channel.bind(context, f"ipc://{tmp_path}/control", ToSupervisor)
    suspects = tuple(
        Suspect(video_id="f" * 64, role="image", start_seconds=at / 3, end_seconds=at) for at in range(10_000)
    )
    spec = WorkerSpec(
        role="engine",
        index=0,
        generation=7,
        endpoints=Endpoints(control=f"ipc://{tmp_path}/control", items="", points=""),
        config=Config(),
        suspects=suspects,
        condemned=(Condemned(item=ITEMS[0], code="device-lost", message="gone"),),
    )
    done = subprocess.run(
        [sys.executable, "-c", LEAVE],
        input=msgspec.msgpack.encode(spec),
        capture_output=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert done.returncode == ExitCode.DEVICE_LOST, done.stderr
    assert (done.stdout, done.stderr) == (b"", b"device-lost: gone\n")
    said = [control.receive(5000), control.receive(5000)]
    control.close()
    context.term()
    assert [received and received.sender for received in said] == [b"engine-0.7"] * 2
    assert said[1] is not None
    assert said[1].message == EngineLost(code="device-lost", message="gone", suspects=suspects)
