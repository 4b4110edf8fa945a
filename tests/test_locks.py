"""A lock names its holder, and is free when the holder is gone, however it went."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from engine.locks import Held, hold

ROOT = Path(__file__).parents[1]
WAIT = "import sys\nprint('here', flush=True)\nsys.stdin.read()"  # to the end of the test, however it ends
HOLDER = "import sys, pathlib\nfrom engine.locks import hold\nlock = hold(pathlib.Path(sys.argv[1]), 'it')\n"


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    with hold(tmp_path / "lock", "the thing"), pytest.raises(Held) as caught:
        hold(tmp_path / "lock", "the thing")
    assert caught.value.code == "held"
    assert caught.value.message.startswith(f"the thing is held by process {os.getpid()} (")
    assert str(tmp_path / "lock") in caught.value.message


def test_a_lock_that_was_let_go_can_be_taken_again(tmp_path: Path) -> None:
    lock = hold(tmp_path / "lock", "it")
    lock.close()
    lock.close()
    with hold(tmp_path / "lock", "it"):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} ")


def test_a_killed_holder_lets_go_and_a_living_one_does_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER + WAIT, str(tmp_path / "lock"), "a\nb"]
    with subprocess.Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        with pytest.raises(Held, match=rf"^it is held by process {process.pid} \(-c .*a b.*\) on \S+; stop"):
            hold(tmp_path / "lock", "it")
        process.send_signal(signal.SIGKILL)
    hold(tmp_path / "lock", "it").close()


def test_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    lock = hold(tmp_path / "lock", "it")
    command = [sys.executable, "-c", WAIT]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, close_fds=False) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        lock.close()
        hold(tmp_path / "lock", "it").close()


def test_a_holder_who_could_not_write_its_name_is_another_process(tmp_path: Path) -> None:
    with hold(tmp_path / "lock", "it"):
        (tmp_path / "lock").write_bytes(b"")
        with pytest.raises(Held, match="held by another process"):
            hold(tmp_path / "lock", "it")


def test_what_stands_in_the_file_is_shown_on_one_short_line(tmp_path: Path) -> None:
    with hold(tmp_path / "lock", "it"):
        (tmp_path / "lock").write_bytes(b"\xff\x1b[2J\n" * 5000)
        with pytest.raises(Held) as caught:
            hold(tmp_path / "lock", "it")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1000


def test_a_lock_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    with pytest.raises(Held, match=r"it cannot be locked: .*lock: No such file or directory") as caught:
        hold(tmp_path / "missing" / "lock", "it")
    assert caught.value.code == "no-lock"


def test_a_full_disk_keeps_the_name_out_and_not_the_lock(tmp_path: Path) -> None:
    script = (
        HOLDER.replace("lock =", "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\nlock =")
        + "try:\n    hold(pathlib.Path(sys.argv[1]), 'it')\nexcept Exception as error:\n    print(error)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "lock")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "it is held by" in done.stdout
