"""Speakers and transcripts through the running daemon, which has the store; and again without it."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.daemons import daemon, watching
from tests.runs import run_cli, settings_for


def printed(arguments: list[str], settings: list[str]) -> dict[str, Any]:
    """What a command prints with --json."""
    done = run_cli([*arguments, "--json"], settings)
    assert done.returncode == 0, done.stderr
    body: dict[str, Any] = json.loads(done.stdout)
    return body


def test_people_are_enrolled_and_transcripts_exported_while_the_daemon_has_the_store(
    sample_video: Path, tiny_models: Any, tmp_path: Path
) -> None:
    root = tmp_path / "watched"
    root.mkdir()
    film, clip = root / "film.mp4", tmp_path / "clip.mp4"
    shutil.copy(sample_video, clip)
    shutil.copy(sample_video, film)
    more = ("models.image=off", "speech.captions=ignore", "voice.enroll_min_seconds=2")
    settings = settings_for(tiny_models, tmp_path, *watching(root), *more)
    with daemon(settings, tmp_path / "log") as process:
        process.until_finished(1)
        unnamed = {hit["speaker"] for hit in process.search("anything", "speech")}
        assert unnamed
        assert all(name.startswith("speaker ") for name in unnamed if name is not None)

        body = printed(["enroll", "Ada", str(clip)], settings)
        assert body["action"] == "enroll"
        spoken = printed(["search", "anything", "--in", "speech", "--speaker", "Ada"], settings)["hits"]
        assert spoken, "the clip is the film itself, so its voice is Ada's"
        assert [each["name"] for each in printed(["speakers", "list"], settings)["speakers"]] == ["Ada"]

        subtitles = run_cli(["export", str(film), "--format", "srt"], settings)
        assert subtitles.returncode == 0, subtitles.stderr
        assert "Ada: " in subtitles.stdout
        refused = run_cli(["speakers", "show", "Adda"], settings)
        assert refused.returncode == 2
        (line,) = refused.stderr.splitlines()
        assert "Ada" in line
        assert process.drain() == 0

    again = run_cli(["export", str(film), "--format", "srt"], settings)
    assert again.stdout == subtitles.stdout, "the same without the daemon"
    printed(["speakers", "remove", "Ada"], settings)
    assert "Ada: " not in run_cli(["export", str(film), "--format", "srt"], settings).stdout
