"""Traces of real runs: whole, with a decoder that is killed, and of a run that is killed itself."""

import json
import os
import signal
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from engine.config import load_config
from engine.files import find_files
from engine.supervisor import Supervisor
from engine.trace_observer import recording
from tests.runs import Meddler, command, run_cli, settings_for

SLOW = ("decode.fps=20", "decode.span_seconds=5", "engine.host_mb=16", "engine.results_mb=1")
Event = dict[str, Any]


def events_in(file: Path) -> list[Event]:
    """Of a trace that opens: every event has what a viewer needs."""
    trace = json.loads(file.read_text())
    assert trace.keys() == {"displayTimeUnit", "traceEvents"}
    for event in trace["traceEvents"]:
        assert event.keys() >= {"ph", "ts", "pid", "tid", "name", "args"}, event
        assert event["ph"] in "MXBEiCbe"
        assert isinstance(event["ts"], int)
        assert event["name"] or event["ph"] == "C"
        assert (event.get("dur", -1) >= 0) == (event["ph"] == "X")
    return list(trace["traceEvents"])


def processes_in(events: list[Event]) -> dict[int, str]:
    """Names by pid."""
    return {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}


def of(events: list[Event], pid: int, phases: str) -> list[Event]:
    return [event for event in events if event["pid"] == pid and event["ph"] in phases]


def assert_nested(events: list[Event], unfinished: int = 0) -> None:
    """On each track what takes time lies within, or outside of, all else that does; some was begun and never ended."""
    spans: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
    begun: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        match event["ph"]:
            case "X":
                spans[event["tid"]].append((event["ts"], event["ts"] + event["dur"], event["name"]))
            case "B":
                begun[event["tid"]].append(event)
            case "E":
                beginning = begun[event["tid"]].pop()
                assert beginning["name"] == event["name"]
                spans[event["tid"]].append((beginning["ts"], event["ts"], event["name"]))
    assert sum(map(len, begun.values())) == unfinished
    for track in spans.values():
        around: list[tuple[int, int, str]] = []
        for span in sorted(track, key=lambda each: (each[0], -each[1])):
            while around and around[-1][1] <= span[0]:
                around.pop()
            assert not around or span[1] <= around[-1][1], (around[-1], span)
            around.append(span)


def test_a_trace_shows_what_every_process_did(sample_video: Path, tiny_models: Any, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    settings = settings_for(tiny_models, tmp_path, *SLOW, "speech.captions=ignore")
    done = run_cli(["ingest", str(sample_video), "--trace", str(file), "--json"], settings)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["videos"]
    events = events_in(file)
    pids = {name: pid for pid, name in processes_in(events).items()}
    assert pids.keys() == {"supervisor", "engine", "consumer", "decoder 0"}
    assert_nested(events)
    tasks = [event["name"] for event in of(events, pids["decoder 0"], "B")]
    assert (tasks[0], tasks.count("frames"), tasks.count("sound")) == ("probe", 4, 1)
    batches: dict[str, int] = defaultdict(int)
    for event in of(events, pids["engine"], "X"):
        batches[event["name"]] += event["args"].get("items", 0)
    assert batches["image"] == row["frames"]
    assert batches["voice"] == row["voice_segments"]
    assert batches["speech"] > 0
    assert batches.keys() >= {"wait for items"}
    written = sum(event["args"]["points"] for event in of(events, pids["consumer"], "X") if event["name"] == "write")
    assert 0 < written <= row["points"], "what took less than a millisecond is not shown"
    begin, end = of(events, pids["supervisor"], "be")
    assert (begin["ph"], end["ph"], end["args"]) == ("b", "e", {"status": "indexed"})
    assert begin["name"] == end["name"] == str(sample_video)
    counted = {event["name"] for event in of(events, pids["supervisor"], "C")}
    assert counted >= {"points", "queued items", "host memory, MB", "results, MB", "resident memory, MB", "work"}
    assert all(begin["ts"] <= event["ts"] for event in of(events, pids["decoder 0"], "BX")), "one clock for all"


def test_a_killed_decoder_is_seen_with_the_task_that_it_had(
    sample_video: Path, tiny_models: Any, tmp_path: Path
) -> None:
    file = tmp_path / "trace.json"

    def kill(supervisor: Supervisor) -> bool:
        """Once it has said that it works on frames."""
        fleet = supervisor.fleet
        if fleet is None or b'"name":"frames"' not in file.read_bytes():
            return False
        os.kill(fleet.decoders[0].pid, signal.SIGKILL)
        return True

    meddler = Meddler(kill)
    config = load_config(settings=settings_for(tiny_models, tmp_path, *SLOW))
    with recording(file, meddler) as (observer, trace):
        meddler.supervisor = supervisor = Supervisor(config, observer)
        supervisor.trace = trace
        report = supervisor.run(find_files([os.fsencode(sample_video)], config.run.extensions))
    assert meddler.done
    assert [row["status"] for row in report["videos"]] == ["indexed"]
    events = events_in(file)
    dead, successor = [pid for pid, name in processes_in(events).items() if name == "decoder 0"]
    open_at_death = len(of(events, dead, "B")) - len(of(events, dead, "E"))
    assert open_at_death <= 1
    assert_nested(events, unfinished=open_at_death)
    assert "frames" in [event["name"] for event in of(events, dead, "B")]
    assert "frames" in [event["name"] for event in of(events, successor, "B")]
    said = [event["name"] for event in events if event["ph"] == "i"]
    assert any(text.startswith("decoder 0 is started again at once: decoder 0 was killed by SIGKILL") for text in said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_or_killed_leaves_a_trace_that_opens(
    number: signal.Signals, sample_video: Path, tiny_models: Any, tmp_path: Path
) -> None:
    file = tmp_path / "trace.json"
    arguments = command(["ingest", str(sample_video), "--trace", str(file)], settings_for(tiny_models, tmp_path, *SLOW))
    run = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (file.exists() and b'"name":"frames"' in file.read_bytes()):
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(number)
    run.wait(timeout=60)
    events = events_in(file)
    assert set(processes_in(events).values()) >= {"supervisor", "engine", "decoder 0"}
    ended = [event["args"] for event in events if event["ph"] == "e"]
    assert ended == ([] if number == signal.SIGKILL else [{"status": "interrupted"}])


def test_a_trace_that_cannot_be_written_is_said_before_any_work(
    sample_video: Path, tiny_models: Any, tmp_path: Path
) -> None:
    before = sample_video.read_bytes()
    settings = settings_for(tiny_models, tmp_path)
    done = run_cli(["ingest", str(sample_video), "--trace", str(sample_video)], settings)
    assert done.returncode == 2
    assert done.stderr.startswith(f"sluice: bad-trace: --trace {sample_video}: it is there, and is no trace")
    assert sample_video.read_bytes() == before
    assert not (tmp_path / "store").exists()
