"""The commands of the Makefile, tried with a stand-in for Python; and the pins that they install."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.pins import ROOT, constraints, normal, requirements

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

# What a `make test ARGS=...` that runs these tests hands to every process below it.
FROM_MAKE = ("MAKE", "MFLAGS", "ARGS", "JOBS", "KILLS", "SEED", "REAL", "MINUTES", "VIDEO", "QUERY", "DEMO_")

# Answers the Makefile's questions truthfully and only writes down what it is asked to run.
STAND_IN = """#!/bin/bash
case "$*" in
    "-c "*) exec {python} "$@" ;;
    "-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    *) echo "$@" >>calls; {then} ;;
esac
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with what a setup reads, and a stand-in for Python."""
    tree = tmp_path / "tree"
    (tree / "benches").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "benches/demo.py"):
        shutil.copy(ROOT / name, tree / name)
    stand_in(tree / "python")
    return tree


def stand_in(path: Path, then: str = "exit 0") -> None:
    path.write_text(STAND_IN.format(python=sys.executable, then=then), "utf-8")
    path.chmod(0o755)


def make(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FROM_MAKE)}
    command = ["make", "-C", str(tree), "--no-print-directory", f"PYTHON={tree}/python", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def calls(tree: Path) -> list[str]:
    """What the stand-in was asked to run since the last time."""
    file = tree / "calls"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


@needs_make
def test_help_names_every_target(tree: Path) -> None:
    said = make(tree).stdout
    for target in ("setup", "demo", "test", "check", "chaos", "soak", "quality", "bench", "clean"):
        assert f"make {target} " in said


@needs_make
def test_setup_is_done_once_and_again_when_the_pins_change(tree: Path) -> None:
    assert make(tree, "setup").returncode == 0
    assert [call for call in calls(tree) if " install " in call]
    assert "numpy" in (tree / ".venv" / "dependencies.txt").read_text()
    assert make(tree, "setup").returncode == 0
    assert calls(tree) == []
    later = (tree / ".venv" / ".ready").stat().st_mtime + 1
    os.utime(tree / "pyproject.toml", (later, later))
    assert make(tree, "setup").returncode == 0
    assert [call for call in calls(tree) if " install " in call]


@needs_make
def test_setup_that_failed_is_done_again(tree: Path) -> None:
    stand_in(tree / "python", then='[[ "$*" != *" install "* ]] || { echo "ERROR: no such package"; exit 1; }')
    failed = make(tree, "demo")
    assert failed.returncode != 0
    assert "ERROR: no such package" in failed.stdout
    assert not [call for call in calls(tree) if "benches.demo" in call]
    stand_in(tree / ".venv" / "bin" / "python")
    assert make(tree, "demo").returncode == 0
    assert [call.split()[0:2] for call in calls(tree)][-1] == ["-m", "benches.demo"]


@needs_make
def test_a_broken_venv_is_made_anew(tree: Path) -> None:
    broken = tree / ".venv" / "bin" / "python"
    broken.parent.mkdir(parents=True)
    broken.write_text("#!/nonexistent/python3\n", "utf-8")
    broken.chmod(0o755)
    done = make(tree, "setup")
    assert done.returncode == 0, done.stderr
    assert "Creating .venv" in done.stdout
    assert "Creating .venv" not in make(tree, "test").stdout


@needs_make
def test_test_installs_the_tools_and_passes_the_exit_code_on(tree: Path) -> None:
    assert make(tree, "test", 'ARGS=-k "one or two"').returncode == 0
    assert (tree / ".venv" / "dev.txt").read_text().splitlines()[0].startswith("ruff==")
    assert calls(tree)[-1] == "-m pytest -q -n 3 --dist loadfile --no-loadscope-reorder -k one or two"
    stand_in(tree / ".venv" / "bin" / "python", then="exit 1")
    assert make(tree, "test").returncode != 0


@needs_make
def test_chaos_and_soak_hand_their_settings_on(tree: Path) -> None:
    assert make(tree, "chaos").returncode == 0
    assert calls(tree)[-1] == "-m tests.chaos.chaos --kills 200"
    make(tree, "chaos", "KILLS=5", "SEED=7", "REAL=1", "ARGS=--subject ingest")
    assert calls(tree) == ["-m tests.chaos.chaos --kills 5 --seed 7 --real --subject ingest"]
    make(tree, "soak", "MINUTES=2")
    assert calls(tree) == ["-m tests.chaos.soak --minutes 2"]
    stand_in(tree / ".venv" / "bin" / "python", then="exit 1")
    assert make(tree, "chaos").returncode != 0


@needs_make
def test_bench_runs_all_and_renders_also_when_one_failed(tree: Path) -> None:
    assert make(tree, "bench", "ARGS=transport sound").returncode == 0
    ran, rendered = calls(tree)[-2:]
    assert ran == "-m benches all --results bench-results transport sound"
    assert rendered == "-m benches render bench-results"
    assert "matplotlib" in (tree / ".venv" / "bench.txt").read_text()
    stand_in(tree / ".venv" / "bin" / "python", then='[[ "$*" != *" all "* ]]')
    assert make(tree, "bench").returncode != 0
    assert calls(tree) == ["-m benches all --results bench-results", "-m benches render bench-results"]
    stand_in(tree / ".venv" / "bin" / "python", then='[[ "$*" != *" render "* ]]')
    assert make(tree, "bench").returncode != 0


@needs_make
def test_clean_removes_what_benches_made(tree: Path) -> None:
    (tree / "bench-results").mkdir()
    assert make(tree, "clean").returncode == 0
    assert not (tree / "bench-results").exists()


@needs_make
@pytest.mark.parametrize(
    "video", ["it's a film.mp4", 'say "hi".mkv', "100% #1 $HOME $(date).mp4", "a;b|c&d`e`.mp4", "two\nlines.mp4"]
)
def test_video_reaches_the_demo_as_it_was_typed(tree: Path, video: str) -> None:
    make(tree, "setup")
    stand_in(tree / ".venv" / "bin" / "python", then='printf %s "$DEMO_VIDEO" >video; printf %s "$DEMO_QUERY" >query')
    done = make(tree, "demo", f"VIDEO={video}", f"QUERY={video}")
    assert done.returncode == 0, done.stderr
    assert (tree / "video").read_text("utf-8") == video
    assert (tree / "query").read_text("utf-8") == video


@needs_make
def test_missing_python_is_one_line(tree: Path) -> None:
    done = make(tree, "demo", "PYTHON=/nonexistent/python3 /nonexistent/python4")
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    assert "apt-get install python3 python3-venv" in done.stderr
    assert not (tree / ".venv").exists()


@needs_make
def test_missing_venv_is_one_line(tree: Path) -> None:
    (tree / "python").write_text(f'#!/bin/bash\n[[ "$2" != *ensurepip* ]] && exec {sys.executable} "$@"\n', "utf-8")
    done = make(tree, "demo")
    version = "{}.{}".format(*sys.version_info[:2])
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    assert f"apt-get install python{version}-venv" in done.stderr


# --- pins -------------------------------------------------------------------------------------------------------------


def test_every_requirement_is_pinned_to_a_version_that_it_allows() -> None:
    pinned = constraints()
    for requirement in map(Requirement, requirements()):
        assert requirement.specifier.contains(pinned[normal(requirement.name)]), requirement


def test_what_is_installed_is_what_is_pinned() -> None:
    pinned, seen = constraints(), set()
    waiting = [Requirement(text) for text in requirements()]
    while waiting:
        requirement = waiting.pop()
        name = normal(requirement.name)
        if name in seen or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        found = distribution(name)
        assert pinned[name] == found.version.partition("+")[0], name  # +cpu: the CPU build of the same version
        waiting += map(Requirement, found.requires or [])
    assert len(seen) > 50


def test_no_registry_is_named() -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt", ".ci/run"):
        assert not re.search(r"://|index-url|find-links", (ROOT / name).read_text("utf-8")), name


def test_ci_runs_what_people_run() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert [line for line in script.read_text("utf-8").splitlines() if line.startswith("make ")] == [
        "make check",
        "make test",
    ]
