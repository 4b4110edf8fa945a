"""Real processes: killed, stopped, stalled, late; a run ends whole, or says in one line why it cannot."""

import json
import os
import signal
import subprocess
import time
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config import load_config
from engine.errors import StartError
from engine.fleet import Fleet
from engine.supervisor import Supervisor
from engine.worker import WorkerSpec
from stages.qdrant import open_store
from stages.store import frames_spec
from tests.chaos.compare import same_value
from tests.runs import (
    Meddler,
    children_of,
    command,
    is_running,
    is_up,
    run_cli,
    run_supervisor,
    sent_whole,
    settings_for,
    signal_child,
    stored_points,
)
from transport.messages import Condemned, EngineLost, Suspect
from transport.sockets import Received


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait until a condition holds; what it gave. Fails the test when it never does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("what was waited for never came")


@pytest.fixture(scope="module")
def undisturbed(sample_video: Path, tiny_models: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The points of a run that nobody disturbs, with frames enough to disturb the others in."""
    settings = settings_for(tiny_models, tmp_path_factory.mktemp("undisturbed"), *SLOW)
    run_supervisor([sample_video], settings, Meddler())
    return stored_points(settings)


VECTOR_ROUNDING = 1e-3  # of components of unit vectors, that travel as float16
# Decoders that wait for credit in the second of four tasks, and are as quick as the models are to load.
SLOW = ("decode.fps=20", "decode.span_seconds=5", "decode.nice=0", "engine.host_mb=16", "engine.results_mb=1")


def assert_same_points(points: dict[str, Any], expected: dict[str, Any]) -> None:
    """Same ids and payloads; same vectors but for the rounding that the size of a batch makes."""
    assert set(points) == set(expected)
    for id_, point in points.items():
        ours, theirs = expected[id_]["payload"], point["payload"]
        assert ours.keys() == theirs.keys()
        assert all(same_value(key, ours[key], theirs[key]) for key in ours), (ours, theirs)
    for id_, point in points.items():
        assert point["vectors"].keys() == expected[id_]["vectors"].keys()
        for name, vector in point["vectors"].items():
            np.testing.assert_allclose(vector, expected[id_]["vectors"][name], atol=VECTOR_ROUNDING, err_msg=id_)


def test_a_killed_decoder_is_replaced_and_nothing_is_lost(
    sample_video: Path, tiny_models: Any, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    settings = settings_for(tiny_models, tmp_path, *SLOW)
    meddler = Meddler(lambda supervisor: signal_child(supervisor, "decoder", signal.SIGKILL))
    report = run_supervisor([sample_video], settings, meddler)
    assert meddler.done
    assert any(phase.startswith("decoder 0 is started again at once: ") for phase in meddler.phases)
    assert [row["status"] for row in report["videos"]] == ["indexed"]
    assert_same_points(stored_points(settings), undisturbed)


def test_what_a_killed_decoder_had_sent_and_nobody_received_is_done_again(
    sample_video: Path, tiny_models: Any, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """The engine stands still, so whole tasks lie in the decoder's own socket when it is killed."""
    settings = settings_for(tiny_models, tmp_path, *SLOW, "engine.host_mb=64")
    stopped = False

    def meddle(supervisor: Supervisor) -> bool:
        nonlocal stopped
        fleet, sent = supervisor.fleet, max(map(len, sent_whole(supervisor)), default=0)
        if fleet is not None and sent and not stopped:  # it has credit, and tasks left
            os.kill(fleet.engine.process.pid or 0, signal.SIGSTOP)
            stopped = True
        elif fleet is not None and sent > 1:
            fleet.decoders[0].kill()
            os.kill(fleet.engine.process.pid or 0, signal.SIGCONT)
            return True
        return False

    meddler = Meddler(meddle)
    report = run_supervisor([sample_video], settings, meddler)
    assert meddler.done
    assert [row["status"] for row in report["videos"]] == ["indexed"]
    assert_same_points(stored_points(settings), undisturbed)


def test_a_stopped_decoder_is_taken_for_stalled_and_replaced(
    sample_video: Path, tiny_models: Any, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    settings = settings_for(tiny_models, tmp_path, *SLOW, "run.stall_seconds=8")
    meddler = Meddler(lambda supervisor: signal_child(supervisor, "decoder", signal.SIGSTOP))
    report = run_supervisor([sample_video], settings, meddler)
    assert meddler.done
    assert any("gave no sign of life" in phase for phase in meddler.phases)
    assert [row["status"] for row in report["videos"]] == ["indexed"]
    assert_same_points(stored_points(settings), undisturbed)


def test_decoders_that_are_replaced_after_every_task_lose_nothing(
    sample_video: Path, tiny_models: Any, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    settings = settings_for(tiny_models, tmp_path, *SLOW, "decode.recycle_tasks=1")
    pids: set[int | None] = set()

    def look(supervisor: Supervisor) -> bool:
        pids.update(child.process.pid for child in (supervisor.fleet.decoders if supervisor.fleet else ()))
        return False

    report = run_supervisor([sample_video], settings, Meddler(look))
    assert len(pids) > 2
    assert [row["status"] for row in report["videos"]] == ["indexed"]
    assert_same_points(stored_points(settings), undisturbed)


def test_a_killed_consumer_is_replaced_and_what_it_had_not_acknowledged_is_sent_again(
    sample_video: Path, tiny_models: Any, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """It stands still before, so that it dies with messages that it has not even looked at."""
    settings = settings_for(tiny_models, tmp_path, *SLOW)

    def stop_and_kill(supervisor: Supervisor) -> bool:
        fleet = supervisor.fleet
        if fleet is None or not is_up(supervisor):
            return False
        os.kill(fleet.consumer.process.pid or 0, signal.SIGSTOP)
        if any(sent_whole(supervisor)):
            fleet.consumer.kill()
            return True
        return False

    meddler = Meddler(stop_and_kill)
    report = run_supervisor([sample_video], settings, meddler)
    assert meddler.done
    assert any(phase.startswith("consumer is started again at once: ") for phase in meddler.phases)
    assert [row["status"] for row in report["videos"]] == ["indexed"]
    assert_same_points(stored_points(settings), undisturbed)


def test_a_consumer_that_dies_again_and_again_ends_the_run(
    sample_video: Path, tiny_models: Any, tmp_path: Path
) -> None:
    settings = settings_for(tiny_models, tmp_path, "run.engine_restarts=1", "run.backoff_seconds=0.1")

    def kill_each(supervisor: Supervisor) -> bool:
        if supervisor.fleet is not None and supervisor.fleet.consumer.ready:
            supervisor.fleet.consumer.kill()
        return False

    with pytest.raises(StartError, match=r"consumer was killed by SIGKILL; last log line"):
        run_supervisor([sample_video], settings, Meddler(kill_each))


class EngineKiller(Meddler):
    """Kills the engine when a whole task has been sent to it. The consumer stands still, so that none is durable."""

    def __init__(self, kills: int = 1, words: Sequence[EngineLost] = (), then: str = "") -> None:
        super().__init__(self._kill)
        self.kills = kills
        self.words = list(words)  # what the engines seem to say before they are killed
        self.then = then  # a phase of the run in which the engine is killed once more
        self.specs: list[WorkerSpec] = []  # of the engines that were killed, and of their last successor
        self.killed: set[int] = set()

    def phase(self, text: str) -> None:
        super().phase(text)
        if text == self.then:
            self.fleet.engine.kill()

    @property
    def fleet(self) -> Fleet:
        assert self.supervisor is not None
        assert self.supervisor.fleet is not None
        return self.supervisor.fleet

    def _kill(self, supervisor: Supervisor) -> bool:
        if not is_up(supervisor):
            return False
        engine, consumer = self.fleet.engine, self.fleet.consumer.process.pid or 0
        if not self.specs:
            os.kill(consumer, signal.SIGSTOP)
        if engine.spec not in self.specs:
            self.specs.append(engine.spec)
        if len(self.specs) > self.kills:
            os.kill(consumer, signal.SIGCONT)
            return True
        if any(sent_whole(supervisor)) and engine.spec.generation not in self.killed:
            self.killed.add(engine.spec.generation)
            if self.words:
                supervisor._take(Received(engine.identity, self.words.pop(0), None, 0))
            engine.kill()
        return False


def test_a_killed_engine_is_started_again_and_nothing_is_lost(
    sample_video: Path, tiny_models: Any, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """And at the end of a run that is complete, its death harms nobody."""
    settings = settings_for(tiny_models, tmp_path, *SLOW)
    meddler = EngineKiller(then="draining")
    report = run_supervisor([sample_video], settings, meddler)
    assert [row["status"] for row in report["videos"]] == ["indexed"]
    assert report["totals"]["engine_restarts"] == 1
    assert_same_points(stored_points(settings), undisturbed)
    _, first, restart, second, draining, end = meddler.phases
    assert restart.startswith("restarting the engine: engine was killed by SIGKILL; last log line: ")
    assert second == first
    assert (draining, end.partition("; ")[0]) == ("draining", "engine was killed by SIGKILL")
    assert end.endswith("all was stored before")


def is_ahead(supervisor: Supervisor) -> bool:
    """Whether a task was decoded whole, and the models are still loading."""
    return supervisor.fleet is not None and any(sent_whole(supervisor)) and not supervisor.fleet.engine.ready


def test_decoders_do_not_wait_for_the_models(
    sample_video: Path, tiny_models: Any, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    settings = settings_for(tiny_models, tmp_path, *SLOW)
    meddler = Meddler(is_ahead)
    report = run_supervisor([sample_video], settings, meddler)
    assert meddler.done
    assert [row["status"] for row in report["videos"]] == ["indexed"]
    assert_same_points(stored_points(settings), undisturbed)


def test_an_engine_that_dies_while_it_loads_is_replaced_and_what_was_sent_to_it_is_done_again(
    sample_video: Path, tiny_models: Any, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    settings = settings_for(tiny_models, tmp_path, *SLOW)

    def kill(supervisor: Supervisor) -> bool:
        found = is_ahead(supervisor)
        if found and supervisor.fleet is not None:
            supervisor.fleet.engine.kill()
        return found

    meddler = Meddler(kill)
    report = run_supervisor([sample_video], settings, meddler)
    assert meddler.done
    assert [row["status"] for row in report["videos"]] == ["indexed"]
    assert report["totals"]["engine_restarts"] == 1
    assert_same_points(stored_points(settings), undisturbed)


def test_draining_while_the_models_load_waits_for_nothing(sample_video: Path, tiny_models: Any, tmp_path: Path) -> None:
    settings = settings_for(tiny_models, tmp_path, *SLOW)

    def drain(supervisor: Supervisor) -> bool:
        supervisor._draining = is_ahead(supervisor)
        return supervisor._draining

    meddler = Meddler(drain)
    (row,) = run_supervisor([sample_video], settings, meddler)["videos"]
    assert meddler.done
    assert (row["status"], row["error"]["code"]) == ("failed", "interrupted")
    assert "draining" in meddler.phases
    assert not [phase for phase in meddler.phases if phase.startswith("indexing on")]


def test_an_engine_that_is_lost_twice_hands_on_what_it_was_lost_in(
    sample_video: Path, tiny_models: Any, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    settings = settings_for(tiny_models, tmp_path, *SLOW, "run.engine_restarts=2")
    two = tuple(Suspect(video_id="v", role="image", start_seconds=at, end_seconds=at + 1.0) for at in (1.0, 2.0))
    message = "an illegal memory access was encountered"
    words = [EngineLost(code="device-lost", message=message, suspects=suspects) for suspects in (two, two[:1])]
    meddler = EngineKiller(kills=2, words=words)
    report = run_supervisor([sample_video], settings, meddler)
    assert [row["status"] for row in report["videos"]] == ["indexed"]
    assert report["totals"]["engine_restarts"] == 2
    condemned = Condemned(item=two[0], code="device-lost", message=message)
    assert [(spec.suspects, spec.condemned) for spec in meddler.specs] == [
        ((), ()),
        (two, ()),
        (two[1:], (condemned,)),
    ]
    assert f"restarting the engine: the engine was lost: device-lost: {message}" in meddler.phases
    assert_same_points(stored_points(settings), undisturbed)


def test_an_engine_that_dies_again_and_again_ends_the_run(sample_video: Path, tiny_models: Any, tmp_path: Path) -> None:
    settings = settings_for(tiny_models, tmp_path, "run.engine_restarts=2")
    killed: set[int] = set()

    def kill_each(supervisor: Supervisor) -> bool:
        """The consumer stands still from the start of the work on: nothing becomes durable between two deaths."""
        fleet = supervisor.fleet
        if fleet is not None and (is_up(supervisor) or (killed and fleet.engine.ready)):
            os.kill(fleet.consumer.process.pid or 0, signal.SIGSTOP)
            killed.add(fleet.engine.process.pid or 0)
            fleet.engine.kill()
        return False

    meddler = Meddler(kill_each)
    words = r"^engine was killed by SIGKILL; last log line: .*; restarted 2 times .* \(run\.engine_restarts\)$"
    with pytest.raises(StartError, match=words) as caught:
        run_supervisor([sample_video], settings, meddler)
    assert caught.value.code == "engine-died"
    assert len(killed) == 3
    assert sum(phase.startswith("restarting the engine: ") for phase in meddler.phases) == 2


def test_an_engine_that_dies_while_the_run_is_ending_leaves_what_is_durable(
    sample_video: Path,
    tiny_models: Any,
    tmp_path: Path,
    undisturbed: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_for(tiny_models, tmp_path, *SLOW)

    steps = ["hold"]

    def drain_and_kill(supervisor: Supervisor) -> bool:
        """When it dies, something is durable, and a decoder that was stopped before has just been given a task."""
        fleet, board, guard = supervisor.fleet, supervisor.board, supervisor.guard
        if fleet is None or board is None or guard is None:
            return False
        decoder = fleet.decoders[0]
        done = any(job.points for job in board.jobs.values())
        if steps[-1] == "hold" and (done or any(sent_whole(supervisor))):
            monkeypatch.setattr(board, "next_message", lambda: None)  # so that not all is durable by then
            steps.append("stop")
        elif steps[-1] == "stop" and done and guard.is_idle(decoder):
            os.kill(decoder.process.pid or 0, signal.SIGSTOP)
            monkeypatch.undo()
            steps.append("drain")
        elif steps[-1] == "drain" and not guard.is_idle(decoder):
            supervisor._draining = True  # as SIGTERM does
            fleet.engine.kill()
        return supervisor._draining

    meddler = Meddler(drain_and_kill)
    report = run_supervisor([sample_video], settings, meddler)
    assert meddler.done
    (row,) = report["videos"]
    assert (row["status"], row["error"]["code"]) == ("partial", "interrupted")
    assert any(gap["reason"].startswith("interrupted") for gap in row["gaps"])
    points = stored_points(settings)
    assert 0 < row["points"] <= len(points)
    assert set(points) < set(undisturbed)
    assert report["totals"]["engine_restarts"] == 0
    assert meddler.phases[-1].endswith("what was not stored before is interrupted")


def test_a_stopped_consumer_bounds_the_bytes_that_wait_for_it(
    sample_video: Path, tiny_models: Any, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    settings = settings_for(tiny_models, tmp_path, *SLOW)
    stopped_at: list[float] = []

    def stop_for_a_while(supervisor: Supervisor) -> bool:
        if not stopped_at:
            if signal_child(supervisor, "consumer", signal.SIGSTOP):
                stopped_at.append(time.monotonic())
            return False
        if time.monotonic() - stopped_at[0] < 4:
            return False
        return signal_child(supervisor, "consumer", signal.SIGCONT)

    meddler = Meddler(stop_for_a_while)
    report = run_supervisor([sample_video], settings, meddler)
    assert meddler.done
    assert max(meddler.host_bytes) <= 16 * 1024 * 1024, "engine.host_mb bounds what the decoders may have sent"
    assert [row["status"] for row in report["videos"]] == ["indexed"]
    assert_same_points(stored_points(settings), undisturbed)


def started(video: Path, settings: list[str], *more: str) -> "subprocess.Popen[str]":
    """A run as a subprocess, with all its children there."""
    process = subprocess.Popen(
        command(["ingest", str(video), *more], settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: len(children_of(process.pid)) >= 3)
    return process


def test_when_the_supervisor_is_killed_its_children_end(sample_video: Path, tiny_models: Any, tmp_path: Path) -> None:
    process = started(sample_video, settings_for(tiny_models, tmp_path, *SLOW))
    children = children_of(process.pid)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(is_running(child) for child in children))
    assert not any(is_running(child) for child in children)


def lines_until(process: "subprocess.Popen[str]", word: str) -> list[str]:
    """Its lines on standard error up to the first that holds a word."""
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if word in line:
            return lines
    raise AssertionError(f"no line with {word!r} in {lines}")


def test_sigterm_drains_and_the_report_says_what_was_not_done(
    sample_video: Path, tiny_models: Any, tmp_path: Path
) -> None:
    report_file = tmp_path / "report.json"
    settings = settings_for(tiny_models, tmp_path, *SLOW)
    process = started(sample_video, settings, "--report", str(report_file))
    lines_until(process, "indexing on")
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    (row,) = json.loads(report_file.read_text())["videos"]
    assert row["status"] in ("partial", "failed")
    assert row["error"]["code"] == "interrupted"
    assert any(gap["reason"].startswith("interrupted") for gap in row["gaps"]) or row["status"] == "failed"
    assert len(stored_points(settings)) == row["points"]


def test_draining_gives_up_a_long_sound_track_wherever_it_is(tiny_models: Any, tmp_path: Path) -> None:
    """Only sound, and no speech in it: its one task would go on to the end of the film."""
    film = tmp_path / "long.wav"
    with wave.open(str(film), "wb") as silence:
        silence.setparams((1, 2, 8000, 0, "NONE", ""))
        silence.writeframes(bytes(2 * 8000 * 3600))
    settings = settings_for(tiny_models, tmp_path)

    def drain_in_the_middle(supervisor: Supervisor) -> bool:
        jobs = list(supervisor.board.jobs.values()) if supervisor.board and is_up(supervisor) else []
        supervisor._draining = any(job.done_seconds > 0 for job in jobs)
        return supervisor._draining

    meddler = Meddler(drain_in_the_middle)
    (row,) = run_supervisor([film], settings, meddler)["videos"]
    assert meddler.done
    assert row["status"] == "failed"
    assert row["error"]["code"] == "drained"


def test_ctrl_c_stops_now_and_leaves_nothing_running(sample_video: Path, tiny_models: Any, tmp_path: Path) -> None:
    process = started(sample_video, settings_for(tiny_models, tmp_path, *SLOW))
    children = children_of(process.pid)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "sluice: interrupted"
    assert "Traceback" not in stderr
    wait_for(lambda: not any(is_running(child) for child in children))  # multiprocessing's own tracker ends last
    assert not any(is_running(child) for child in children)


def test_a_child_that_is_late_is_named_with_the_setting(sample_video: Path, tiny_models: Any, tmp_path: Path) -> None:
    settings = settings_for(tiny_models, tmp_path, "run.start_timeout_seconds=0.01")
    done = run_cli(["ingest", str(sample_video)], settings)
    assert done.returncode == 4
    assert "run.start_timeout_seconds" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_run_directory_that_is_too_deep_is_named(sample_video: Path, tiny_models: Any, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    done = run_cli(["ingest", str(sample_video)], settings_for(tiny_models, tmp_path, f"run.directory={deep}"))
    assert done.returncode == 4
    assert "set run.directory" in done.stderr.splitlines()[-1]


def test_a_store_in_use_is_named_at_once(sample_video: Path, tiny_models: Any, tmp_path: Path) -> None:
    settings = settings_for(tiny_models, tmp_path, *SLOW)
    process = started(sample_video, settings)
    lines_until(process, "indexing on")
    second = run_cli(["ingest", str(sample_video)], settings)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert second.returncode == 4
    (line,) = second.stderr.splitlines()
    assert line.startswith("sluice: store-locked:")
    assert not list(Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp").glob(f"sluice-run-*/{process.pid}"))


def test_a_store_of_another_vector_size_is_named_with_what_to_do(
    sample_video: Path, tiny_models: Any, tmp_path: Path
) -> None:
    settings = settings_for(tiny_models, tmp_path)
    store = open_store(load_config(settings=settings).store, None)
    store.ensure([frames_spec(12)])
    store.close()
    done = run_cli(["ingest", str(sample_video)], settings)
    assert done.returncode == 4
    line = done.stderr.splitlines()[-1]
    assert line.startswith("sluice: vector-size: ")
    assert "12" in line
    assert "64" in line
    assert "store.path" in line
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_named(sample_video: Path, tiny_models: Any, tmp_path: Path) -> None:
    settings = settings_for(tiny_models, tmp_path, "store.url=http://127.0.0.1:1", "store.retry_seconds=1")
    done = run_cli(["ingest", str(sample_video)], settings)
    assert done.returncode == 4
    assert "127.0.0.1:1" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
