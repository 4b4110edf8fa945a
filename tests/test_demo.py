"""The demo, run as `make demo` runs it, on a short video."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benches.demo import DemoError, describe, index, main, shortened, sluice, verdict
from benches.sample_video import make_sample, sentences
from tests.conftest import TinyModels

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, tiny_models: TinyModels) -> Path:
    """A working directory with our code, ready models and a short video of the user's own."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("run.py", "engine", "stages", "transport", "benches", "configs"):
        (tree / name).symlink_to(ROOT / name)
    for family in ("clip", "siglip", "whisper", "ecapa"):
        assert tiny_models[family].is_dir()
    (tree / "demo").mkdir()
    (tree / "demo" / "models").symlink_to(tiny_models.directory)
    (tree / "it's mine").mkdir()
    (tree / "it's mine" / "empty.mp4").touch()
    make_sample(tree / "it's mine" / "film.mp4", 12.0)
    return tree


def demo(tree: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benches.demo"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "DEMO_"))}
    return subprocess.run(
        command, cwd=tree, env=clean | environment, capture_output=True, text=True, check=False, timeout=170
    )


def test_demo_finds_by_meaning_and_says_unchanged_the_second_time(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = demo(tree, DEMO_VIDEO="it's mine", DEMO_QUERY="preparing a meal")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    hits = [line for line in done.stdout.splitlines() if "onions in butter" in line or "calm sea" in line]
    assert "onions" in hits[0], done.stdout
    assert done.stdout.count("a frame") == 3
    assert "UNTRAINED" in done.stdout
    assert "empty.mp4 - empty-file" in done.stdout
    report = json.loads((tree / "demo" / "report.json").read_text("utf-8"))
    assert {row["speech_segments"] for row in report["videos"]} == {0, len(sentences(12.0))}

    monkeypatch.chdir(tree)
    assert [row["status"] for row in index(tree / "it's mine" / "film.mp4")] == ["unchanged"]
    assert "unchanged since last time: 12 frames, 2 speech" in capsys.readouterr().out


def test_a_video_that_fails_is_named_and_gives_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing_run(*arguments: str, accepted: tuple[int, ...] = (0,)) -> str:
        if arguments[0] == "ingest":
            assert 3 in accepted
            Path("demo/report.json").write_text('{"videos": [{"path": "x.mp4", "status": "failed"}]}', "utf-8")
        return "1 failed\n  x.mp4 - empty-file: the file is empty"

    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "x.mp4").touch()
    monkeypatch.setattr("benches.demo.sluice", failing_run)
    monkeypatch.setenv("DEMO_VIDEO", "x.mp4")
    assert main() == 3
    assert "empty-file: the file is empty" in capsys.readouterr().err


def test_a_command_that_fails_shows_its_reason(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    with pytest.raises(DemoError, match="nearest is") as failed:
        sluice("models", "list", "--set", "decode.fpss=2")
    assert failed.value.code == 2


def test_missing_video_is_said_before_anything_is_done(tree: Path) -> None:
    done = demo(tree, DEMO_VIDEO="nowhere.mp4")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "demo: VIDEO=nowhere.mp4: there is no such file\n"


def test_verdict_never_praises_an_untrained_model() -> None:
    captioned = {"path": "my.mp4", "notes": ["captions: stream 2 (mov_text, eng)"]}
    bare = {"path": "my.mp4", "notes": []}
    hit = {"text": "…"}
    assert "Untrained" in verdict("frames", [hit], [captioned])
    assert "gibberish" in verdict("speech", [hit], [bare])
    assert "gibberish" in verdict("speech", [hit], [captioned, bare])
    assert verdict("speech", [hit], [captioned]).startswith("Found in the captions, by meaning")
    assert verdict("speech", [], [captioned]) == "nothing: this video has no speech"


def test_description_of_a_row_without_length() -> None:
    counts = {"frames": 1, "speech_segments": 0, "voice_segments": 0}
    row = {"status": "partial", "duration_seconds": None, "wall_seconds": 0.5, **counts}
    assert describe(row).endswith("of 0 s in 0.5 s")
    assert describe({**row, "status": "unchanged"}).startswith("unchanged since last time: 1 frames")


def test_long_texts_are_cut() -> None:
    assert shortened("a" * 200) == "a" * 99 + "…"
    assert shortened("short") == "short"
