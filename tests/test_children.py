"""What the supervisor knows of a child that died."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import failpoints
from engine.children import Child, describe_exit, limit_reached
from engine.config import load_config
from engine.rundir import endpoints_in, run_directory
from engine.worker import WorkerSpec


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    """A decoder whom nobody answers, so that it waits."""
    with run_directory(str(tmp_path)) as directory:
        config = load_config(settings=["models.speech=off", "models.voice=off", "models.text=off"])
        spec = WorkerSpec(role="decoder", index=3, generation=1, endpoints=endpoints_in(directory), config=config)
        child = Child(spec)
        yield child
        child.kill()
        child.close()


def test_a_child_that_was_killed_is_known_by_its_number_and_its_end(child: Child) -> None:
    pid = child.pid
    assert child.is_alive
    child.kill()
    child.close()
    assert child.pid == pid
    assert not child.is_alive
    assert child.last_words() == "decoder 3 was killed by SIGKILL; last log line: it said nothing"
    child.kill()  # safe, too, when it is gone


def test_a_child_that_used_up_its_processor_time_names_the_setting(child: Child) -> None:
    os.kill(child.pid, signal.SIGXCPU)
    child.process.join()
    assert child.last_words().startswith("decoder 3 was killed by SIGXCPU (it came to decode.cpu_minutes); ")


def test_a_child_can_be_killed_while_it_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "killed"
    monkeypatch.setenv(failpoints.VARIABLE, f"{failpoints.DURING_START}:1:{file}")
    with run_directory(str(tmp_path)) as directory:
        endpoints = endpoints_in(directory)
        child = Child(WorkerSpec(role="engine", index=0, generation=1, endpoints=endpoints, config=load_config()))
        child.close()
    assert file.read_text() == f"{child.pid}\n"
    assert child.last_words().startswith("engine was killed by SIGKILL; ")


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (1, "MemoryError"),
        (1, "av.error.MemoryError: [Errno 12] Cannot allocate memory"),
        (-signal.SIGABRT, "  what():  std::bad_alloc"),
    ],
)
def test_memory_that_ran_out_names_the_setting(code: int, line: str) -> None:
    assert limit_reached(code, ["before", line, "after"]) == "decode.memory_gb"
    assert limit_reached(-signal.SIGKILL, ["before", line, "after"]) is None  # it was borne; something else killed


@pytest.mark.parametrize("code", [None, 0, 1, 11, -signal.SIGSEGV, -signal.SIGABRT])
def test_other_ends_come_to_no_limit(code: int | None) -> None:
    assert limit_reached(code, ["ValueError: no such thing"]) is None


def test_exit_codes_are_named() -> None:
    assert describe_exit(None) == "is still running"
    assert describe_exit(-9) == "was killed by SIGKILL"
    assert describe_exit(11) == "ended with exit code 11 (CHILD_START_FAILED)"
    assert describe_exit(99) == "ended with exit code 99"
