"""The engine process itself, between a supervisor, a decoder and consumers that this test plays."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from engine.children import Child
from engine.config import load_config
from engine.core import DEVICE_LOST, EngineLostError
from engine.errors import ExitCode
from engine.process import EngineProcess
from engine.rundir import endpoints_in, run_directory
from engine.worker import WorkerSpec
from tests.conftest import TinyModels
from tests.runs import settings_for
from tests.test_egress import FakeConsumer
from transport.codec import spec_of
from transport.messages import (
    AudioResume,
    Checkpoint,
    ConsumerReplaced,
    Drain,
    EmbedQuery,
    EngineLost,
    EngineStats,
    Fence,
    Frame,
    Grant,
    Hello,
    Join,
    Message,
    Passed,
    QueryVectors,
    Ready,
    Receiving,
    TaskEnd,
    TaskKey,
    TaskResult,
    TaskStart,
    ToSupervisor,
)
from transport.sockets import Channel

KEY = TaskKey(1, 0)
ENOUGH_MS = 120_000  # for what must come; only a failure takes so long


class EngineRig:
    """A real engine process, and the sockets of everybody else."""

    def __init__(self, spec: WorkerSpec, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        self.context = context
        self.endpoints = spec.endpoints
        self.control: Channel[Any] = Channel.bind(context, spec.endpoints.control, ToSupervisor)
        self.child = Child(spec)
        self.heard: list[Message] = []
        self.ready = self.wait_for(Ready)
        self.items: Channel[Grant] = Channel.connect(context, spec.endpoints.items, Grant, b"decoder-0.2")
        self.items.send(Join())

    def wait_for(self, kind: type[Any], such: Callable[[Any], bool] = lambda message: True) -> Any:
        """The next message of a kind that is such."""
        while (received := self.control.receive(ENOUGH_MS)) is not None:
            self.heard.append(received.message)
            if isinstance(received.message, kind) and such(received.message):
                return received.message
        self.child.read_log()
        raise AssertionError(f"no {kind.__name__}; the engine said: {list(self.child.tail)}")

    def tell(self, message: Message) -> None:
        self.control.send(message, to=self.child.identity)

    def frame(self, at: float) -> None:
        assert self.ready.frame_format is not None
        shape = (self.ready.frame_format.height, self.ready.frame_format.width, 3)
        pixels = np.full(shape, int(at), dtype=np.uint8)
        self.items.send(Frame(key=KEY, start_seconds=at, end_seconds=at + 1, array=spec_of(pixels)), pixels)

    def has_ended(self) -> bool:
        self.child.process.join(timeout=0.5)
        return self.child.process.exitcode is not None


def spec_in(directory: Path, models: TinyModels, tmp_path: Path, *more: str, **spec: Any) -> WorkerSpec:
    """An engine for pictures alone."""
    off = ("models.speech=off", "models.voice=off", "models.text=off")
    config = load_config(settings=[*settings_for(models, tmp_path), *off, *more])
    return WorkerSpec(role="engine", index=0, generation=1, endpoints=endpoints_in(directory), config=config, **spec)


@contextmanager
def engine(models: TinyModels, tmp_path: Path, *more: str, **spec: Any) -> Iterator[EngineRig]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with run_directory(str(tmp_path)) as directory:
        rig = EngineRig(spec_in(directory, models, tmp_path, *more, **spec), context)
        try:
            yield rig
        finally:
            rig.child.kill()
            rig.child.close()
            context.destroy(linger=0)


def results_in(consumer: FakeConsumer, last: int) -> list[int]:
    """Sections of the results that come, up to the last."""
    sections: list[int] = []
    while not sections or sections[-1] != last:
        consumer.take()
        message = consumer.held[-1].message
        if isinstance(message, TaskResult):
            sections.append(message.section)
    return sections


@pytest.fixture
def tmp_path_short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For sockets, whose paths must be short."""
    return tmp_path_factory.mktemp("p")


def test_a_draining_engine_ends_when_what_it_made_is_durable(tiny_models: TinyModels, tmp_path_short: Path) -> None:
    """Its first consumer dies without a word; the second gets everything, and its acknowledgement ends the drain."""
    with engine(tiny_models, tmp_path_short) as rig:
        first = FakeConsumer(rig.endpoints.points)
        rig.items.send(TaskStart(key=KEY, video_id="video", shown_path="a.mp4", section=2))
        rig.frame(1.0)
        resume = AudioResume(section=3, seconds=5.0, state=b"")
        rig.items.send(Checkpoint(key=KEY, items=1, gaps=(), resume=resume))
        rig.items.send(TaskEnd(key=KEY, items=0, gaps=()))
        assert results_in(first, last=3) == [2, 3]
        rig.tell(Drain())
        assert not rig.has_ended()
        first.die()
        second = FakeConsumer(rig.endpoints.points)
        rig.tell(ConsumerReplaced())
        assert results_in(second, last=3) == [2, 3]
        assert len(second.held) == 3, "the point, and two results"
        rig.tell(Fence(number=7))
        second.acknowledge(2)
        rig.wait_for(EngineStats)
        assert not rig.has_ended()
        assert not any(isinstance(message, Passed) for message in rig.heard)
        second.acknowledge(1)
        assert rig.wait_for(Passed).number == 7
        rig.child.process.join(timeout=ENOUGH_MS / 1000)
        assert rig.child.process.exitcode == 0
        second.die()


def test_an_engine_process_answers_queries_and_says_what_it_holds(
    tiny_models: TinyModels, tmp_path_short: Path
) -> None:
    device = ("device.name=simulated", "device.memory_share=1")
    with engine(tiny_models, tmp_path_short, *device, serves_queries=True) as rig:
        rig.tell(EmbedQuery(request=1, text="a red car", roles=("image",)))
        rig.tell(EmbedQuery(request=2, text="a red car", roles=("image", "text")))
        answers = {answer.request: answer for answer in (rig.wait_for(QueryVectors), rig.wait_for(QueryVectors))}
        (vector,) = answers[1].vectors.values()
        assert len(vector) == rig.ready.models[0].dimension
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
        assert answers[2].error is not None
        assert answers[2].error.startswith("no-query-model: the text model")
        stats = rig.wait_for(EngineStats)
        assert 0 < stats.device_bytes <= stats.peak_device_bytes <= stats.budget_bytes
        assert 0 < stats.rss_bytes <= stats.peak_rss_bytes
        rig.tell(Drain())
        rig.child.process.join(timeout=ENOUGH_MS / 1000)
        assert rig.child.process.exitcode == 0


class LeftError(Exception):
    """Stands for the end of the process."""


def test_an_engine_that_lost_its_device_asks_it_for_nothing_more(
    tiny_models: TinyModels, tmp_path_short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost card answers every question with an error, and the last words must be heard all the same."""
    said: list[Message] = []

    def leave(control: Channel[Any], words: EngineLost, code: ExitCode) -> None:
        said.append(words)
        raise LeftError

    def step(now_seconds: float) -> bool:
        monkeypatch.setattr(process._device, "read", lambda: pytest.fail("the device was asked"))
        raise EngineLostError(DEVICE_LOST, "illegal memory access", ())

    monkeypatch.setattr("engine.process.leave", leave)
    monkeypatch.setattr("engine.process.Ingress.start", lambda self: None)  # nobody sends it anything
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with run_directory(str(tmp_path_short)) as directory:
        spec = spec_in(directory, tiny_models, tmp_path_short, "device.name=simulated")
        control: Channel[Any] = Channel.bind(context, spec.endpoints.control, ToSupervisor)
        process = EngineProcess(spec)
        process._report(at_once=True)
        monkeypatch.setattr(process._engine, "step", step)
        with pytest.raises(LeftError):
            process._step()
        kinds = [type(received.message) for _ in range(4) if (received := control.receive(ENOUGH_MS)) is not None]
        for socket in (process._control.socket, process._ingress._channel.socket):
            socket.context.destroy(linger=0)
        context.destroy(linger=0)
    assert [type(words) for words in said] == [EngineLost]
    assert kinds == [Hello, Receiving, EngineStats, EngineStats]


def test_with_searches_off_no_query_is_answered_with_vectors(tiny_models: TinyModels, tmp_path_short: Path) -> None:
    with engine(tiny_models, tmp_path_short, "daemon.search=false", serves_queries=True) as rig:
        rig.tell(EmbedQuery(request=1, text="a red car", roles=("image",)))
        answer = rig.wait_for(QueryVectors)
        assert answer.vectors == {}
        assert "daemon.search" in (answer.error or "")
        stats = rig.wait_for(EngineStats)
        assert stats.device_bytes == stats.peak_device_bytes == 0, "on the CPU that is its resident size"
        assert stats.models["image"].queued_bytes == 0
