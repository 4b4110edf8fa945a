"""`export` as a stranger scripts against it: subprocesses on a store, beside a daemon, and after `ingest`."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benches.sample_video import sentences
from engine.config import load_config
from engine.maintenance import opened
from stages.qdrant import open_store
from tests.qdrant_loopback import fast_disk
from tests.runs import ROOT, command, run_cli
from tests.test_cli_daemon import FakeDaemon, daemon
from tests.test_export import VIDEO, Shelf
from tests.test_subtitles import read_by_ffmpeg, read_srt
from tests.test_transcript import phrase, voice
from transport.requests import PointsRequest, Request

__all__ = ["daemon"]


@pytest.fixture(scope="module")
def shelf() -> Iterator[Shelf]:
    with tempfile.TemporaryDirectory(dir=fast_disk()) as root:
        made = Shelf(Path(root))
        made.speech(phrase(0.0, 1.5, "Zwölf Boxkämpfer → 日本", 1), phrase(2.0, 3.0, "And you?", 2))
        made.voices(voice(1, [[0.0, 1.5]], "Anna"), voice(2, [[2.0, 3.0]]))
        made.indexed()
        yield made


def exported(shelf: Shelf, *arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """Its output as bytes: encodings and line ends count."""
    return subprocess.run(
        command(["export", *arguments], shelf.settings), capture_output=True, timeout=150, cwd=ROOT, check=False, **more
    )


def test_the_result_is_utf_8_on_standard_output_whatever_the_locale(shelf: Shelf) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}
    done = exported(shelf, VIDEO[:8], "--format", "srt", env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == (
        "1\n00:00:00,000 --> 00:00:01,500\nAnna: Zwölf Boxkämpfer → 日本\n\n"
        "2\n00:00:02,000 --> 00:00:03,000\nSpeaker 2: And you?\n\n"
    )


@pytest.mark.parametrize(("form", "beginning"), [("vtt", "WEBVTT\n\n"), ("rttm", "SPEAKER a_film 1 "), ("json", "{")])
def test_the_result_goes_into_a_file_that_is_named(shelf: Shelf, tmp_path: Path, form: str, beginning: str) -> None:
    file = tmp_path / "result"
    done = exported(shelf, str(shelf.film), "--format", form, "--output", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert file.read_text("utf-8").startswith(beginning)


def test_speakers_are_left_out_on_request(shelf: Shelf) -> None:
    done = exported(shelf, VIDEO, "--format", "vtt", "--no-speakers", "--text-by", "whisper@1")
    assert done.returncode == 0
    assert b"<v" not in done.stdout
    assert b"And you?" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([VIDEO], 2, "--format"),
        ([VIDEO, "--format", "ass"], 2, "invalid choice"),
        ([VIDEO, "--format", "rttm", "--no-speakers"], 2, "bad-argument"),
        (["/nowhere/x.mp4", "--format", "srt"], 2, "no-such-video"),
        ([VIDEO, "--format", "srt", "--text-by", "captions"], 2, "no-such-text"),
        ([VIDEO, "--format", "srt", "--output", "/nowhere/x.srt"], 2, "bad-output"),
        ([VIDEO, "--format", "srt", "--output", "film.mp4"], 2, "bad-output"),
    ],
)
def test_wrong_use_is_one_line_and_its_exit_code(shelf: Shelf, arguments: list[str], code: int, words: str) -> None:
    done = exported(shelf, *arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert words in done.stderr.decode().splitlines()[-1]
    assert b"Traceback" not in done.stderr


def test_a_store_in_use_is_one_line(shelf: Shelf) -> None:
    store = open_store(load_config(settings=shelf.settings).store, None)
    try:
        done = exported(shelf, VIDEO, "--format", "srt")
    finally:
        store.close()
    assert done.returncode == 4
    assert done.stderr.decode().startswith("sluice: store-locked: ")


def test_what_should_be_known_is_said_beside_the_result(shelf: Shelf, tmp_path: Path) -> None:
    other = Shelf(tmp_path)
    other.write()
    other.indexed()
    done = exported(other, str(other.film), "--format", "srt")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.decode() == f"{other.film}: no speech is stored of it; the result is empty\n"


# --- beside a daemon, and behind an ingest ----------------------------------------------------------------------------


def test_a_daemon_is_asked_for_the_points(daemon: FakeDaemon, tmp_path: Path) -> None:
    points = {
        "speech": [phrase(3.0, 4.0, "Second.", 1), phrase(1.0, 2.0, "First.", 1)],
        "speakers": [{**voice(1, [[1.0, 4.0]], "Anna"), "model": "ecapa@1"}],
    }
    with opened(load_config(settings=daemon.settings), ()) as books:
        books.ledger.videos.begin(VIDEO, b"/films/a.mp4")
        books.ledger.record_video(VIDEO, b"/films/a.mp4", {"status": "indexed", "error": None})

    def respond(request: Request) -> dict[str, Any]:
        assert isinstance(request, PointsRequest)
        found = points[request.collection]
        index = int(request.start or "0")
        page = [{"id": str(index), "payload": {**found[index], "model": "m@1"}}]
        return {"points": page, "following": str(index + 1) if index + 1 < len(found) else None}

    daemon.respond = respond
    done = run_cli(["export", "/films/a.mp4", "--format", "vtt"], daemon.settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\n<v Anna>First.\n\n00:00:03.000 --> 00:00:04.000\n<v Anna>Second.\n\n"
    )
    assert [(each.collection, each.start) for each in daemon.asked if isinstance(each, PointsRequest)] == [
        ("speech", None), ("speech", "1"), ("speakers", None),
    ]  # fmt: skip
    assert not (tmp_path / "store" / "sluice-store.json").exists()


def test_the_captions_of_an_ingested_video_come_out_again(sample_video: Path, tmp_path: Path) -> None:
    models = [f"models.{role}=off" for role in ("image", "speech", "voice")]
    settings = [*models, f"store.path={tmp_path / 'store'}", f"run.state={tmp_path / 'state'}", "device.name=cpu"]
    done = run_cli(["ingest", str(sample_video)], settings)
    assert done.returncode == 0, done.stderr
    done = run_cli(["export", str(sample_video), "--format", "srt"], settings)
    assert done.returncode == 0, done.stderr
    assert "nobody is named" in done.stderr
    said = [(*(round(at * 1000) for at in each.shown_seconds), each.text) for each in sentences(20)]
    found = read_srt(done.stdout)
    assert [(cue.start_ms, cue.end_ms, " ".join(cue.lines)) for cue in found] == said
    assert read_by_ffmpeg(done.stdout, "srt") == found
