"""The command line as a stranger scripts against it: subprocesses, exit codes, one line for what is wrong."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.runs import run_cli, settings_for

REPORT_KEYS = {
    "path", "video_id", "status", "error", "duration_seconds", "wall_seconds", "rtf", "frames", "speech_segments",
    "voice_segments", "points", "text_coverage", "voice_coverage", "gaps", "oom_events", "batch_splits",
}  # fmt: skip
TOTAL_KEYS = {
    "videos", "indexed", "failed", "points", "hours_per_hour", "rtf", "wall_seconds", "oom_events", "peak_rss_bytes",
    "peak_device_bytes", "device_busy_fraction",
}  # fmt: skip


class Library:
    """A directory of good and bad files, ingested once."""

    def __init__(self, root: Path, settings: list[str], sample: Path) -> None:
        self.settings = settings
        self.films = root / "films"
        self.films.mkdir()
        self.odd_name = os.fsencode(self.films) + b"/odd \xff\n'%20\".mp4"
        shutil.copy(sample, self.films / "a film.mp4")
        Path(os.fsdecode(self.odd_name)).write_bytes(sample.read_bytes() + b"\0" * 16)  # other content, same film
        (self.films / "empty.mp4").touch()
        (self.films / "list.mp4").write_text("#EXTM3U\n/etc/passwd\n")
        (self.films / "notes.txt").write_text("not looked at")
        self.report_file = root / "report.json"
        self.first = run_cli(["ingest", str(self.films), "--report", str(self.report_file)], settings)
        self.report: dict[str, Any] = json.loads(self.report_file.read_text())

    def row(self, name: str) -> dict[str, Any]:
        (row,) = [row for row in self.report["videos"] if name in row["path"]]
        return dict(row)


@pytest.fixture(scope="module")
def library(sample_video: Path, tiny_models: Any, tmp_path_factory: pytest.TempPathFactory) -> Library:
    root = tmp_path_factory.mktemp("library")
    return Library(root, settings_for(tiny_models, root), sample_video)


def test_bad_files_are_named_and_cost_only_themselves(library: Library) -> None:
    assert library.first.returncode == 3, library.first.stderr
    assert library.row("empty.mp4")["error"]["code"] == "empty-file"
    assert library.row("list.mp4")["error"]["code"] == "not-media"
    assert library.row("a film.mp4")["status"] == "indexed"
    assert "4 videos: 2 indexed, 0 partial, 0 unchanged, 2 failed" in library.first.stdout
    assert "empty.mp4 - empty-file" in library.first.stdout


def test_a_name_of_odd_bytes_is_indexed_and_shown_on_one_line(library: Library) -> None:
    row = library.row("odd ")
    assert row["status"] == "indexed"
    assert row["path"].endswith("odd \\xff\\n'%20\".mp4")


def test_the_report_is_as_designed(library: Library) -> None:
    assert set(library.report) == {"videos", "totals"}
    assert all(set(row) >= REPORT_KEYS for row in library.report["videos"])
    totals = library.report["totals"]
    assert set(totals) >= TOTAL_KEYS
    assert set(totals["peak_rss_bytes"]) == {"supervisor", "decoder", "engine", "consumer"}
    assert all(value > 1_000_000 for value in totals["peak_rss_bytes"].values())
    assert 0 < totals["device_busy_fraction"] <= 1
    row = library.row("a film.mp4")
    assert row["frames"] == 20
    assert row["speech_segments"] >= 3
    assert row["voice_segments"] >= 3
    assert row["points"] == row["frames"] + row["speech_segments"] + row["voice_segments"]
    assert 0.9 < row["voice_coverage"] <= 1
    assert 0 < row["text_coverage"] <= 1
    assert any("captions" in note for note in row["notes"])


def test_again_everything_is_unchanged_and_the_points_are_the_same(library: Library) -> None:
    before = run_cli(["points", "--vectors"], library.settings).stdout
    again = run_cli(["ingest", str(library.films), "--json"], library.settings)
    assert again.returncode == 3
    statuses = sorted(row["status"] for row in json.loads(again.stdout)["videos"])
    assert statuses == ["failed", "failed", "unchanged", "unchanged"]
    assert run_cli(["points", "--vectors"], library.settings).stdout == before


def test_a_renamed_file_is_known_by_its_content(library: Library, tmp_path: Path) -> None:
    copy = tmp_path / "other name.mp4"
    shutil.copy(library.films / "a film.mp4", copy)
    done = run_cli(["ingest", str(copy), "--json"], library.settings)
    assert done.returncode == 0
    (row,) = json.loads(done.stdout)["videos"]
    assert (row["status"], row["path"]) == ("unchanged", str(copy))


def test_points_are_json_lines(library: Library) -> None:
    done = run_cli(["points", "--collection", "frames"], library.settings)
    points = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(points) == 40
    assert {key for point in points for key in point} == {"collection", "id", "payload", "vectors"}
    assert points[0]["vectors"] is None
    assert {"video_id", "path", "start_seconds", "end_seconds", "model"} <= set(points[0]["payload"])
    assert "untrained" in points[0]["payload"]["model"]
    whole = run_cli(["points", "--collection", "voices", "--vectors"], library.settings)
    vector = json.loads(whole.stdout.splitlines()[0])["vectors"]["voice"]
    assert sum(value * value for value in vector) == pytest.approx(1.0, abs=1e-2)


def test_search_finds_what_was_meant_and_when(library: Library) -> None:
    done = run_cli(["search", "preparing a meal in the kitchen", "--in", "speech", "--json"], library.settings)
    found = json.loads(done.stdout)
    assert found["query"] == "preparing a meal in the kitchen"
    hit = found["hits"][0]
    assert set(hit) == {
        "score",
        "kind",
        "video_id",
        "path",
        "start_seconds",
        "end_seconds",
        "text",
        "speaker",
        "source",
    }
    assert hit["source"] == "captions"
    assert hit["kind"] == "speech"
    assert any(word in hit["text"].lower() for word in ("onion", "soup", "bread", "butter", "oven", "pan"))
    assert [h["score"] for h in found["hits"]] == sorted((h["score"] for h in found["hits"]), reverse=True)


def test_search_with_another_model_than_made_the_points_is_refused(library: Library, tiny_models: Any) -> None:
    settings = [*library.settings, f"models.image={tiny_models['siglip']}"]
    done = run_cli(["search", "a red ball", "--in", "frames"], settings)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("sluice: other-model:")
    assert "tiny-clip" in line
    assert "tiny-siglip" in line


def test_search_of_everything_gives_both_kinds_within_the_limit(library: Library) -> None:
    done = run_cli(["search", "a red ball", "--limit", "2", "--json"], library.settings)
    kinds = [hit["kind"] for hit in json.loads(done.stdout)["hits"]]
    assert kinds == ["frame", "frame", "speech", "speech"]


def test_hybrid_search_finds_the_exact_word(library: Library) -> None:
    text = json.loads(run_cli(["search", "x", "--in", "speech", "--json"], library.settings).stdout)["hits"][-1]["text"]
    word = max(text.replace(".", "").replace(",", "").split(), key=len)
    done = run_cli(["search", word, "--in", "speech", "--hybrid", "--limit", "1", "--json"], library.settings)
    assert word in json.loads(done.stdout)["hits"][0]["text"]


def test_plain_search_shows_time_path_and_text(library: Library) -> None:
    done = run_cli(["search", "food", "--in", "speech", "--limit", "1"], library.settings)
    (line,) = done.stdout.splitlines()
    assert ".mp4" in line
    assert "0:" in line


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ingest"], 2, "PATH"),
        (["ingest", "x.mp4", "--set", "decode.fsp=1"], 2, "decode.fps"),
        (["ingest", "x.mp4", "--config", "none.toml"], 2, "none.toml"),
        (["ingest", "x.mp4", "--report", "/nowhere/report.json"], 2, "--report"),
        (["search", " "], 2, "query is empty"),
        (["search", "x", "--limit", "0"], 2, "at least 1"),
        (["search", "x", "--store", "/nowhere/store"], 4, "store"),
        (["points", "--collection", "films"], 2, "films"),
        (["models", "list", "/somewhere"], 2, "models.directory"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_wrong_use_is_one_line_and_its_exit_code(arguments: list[str], code: int, words: str) -> None:
    done = run_cli(arguments)
    assert done.returncode == code
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_missing_model_is_said_before_any_work(sample_video: Path, tmp_path: Path) -> None:
    settings = [f"models.directory={tmp_path}", f"store.path={tmp_path / 'store'}", "models.image=nobody/nothing"]
    done = run_cli(["ingest", str(sample_video)], settings, env={**os.environ, "HF_HOME": str(tmp_path / "hub")})
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert line.startswith("sluice: model-missing:")
    assert "models.image" in line
    assert "models pull" in line
    assert not (tmp_path / "store").exists()


def test_a_path_that_gives_nothing_fails_alone(library: Library) -> None:
    done = run_cli(["ingest", "/nowhere/a.mp4", str(library.films / "a film.mp4")], library.settings)
    assert done.returncode == 3
    assert "not-found" in done.stdout
    assert "1 unchanged, 1 failed" in done.stdout


def test_a_store_of_another_vector_size_is_refused(library: Library, tiny_models: Any, tmp_path: Path) -> None:
    shutil.copy(library.films / "a film.mp4", tmp_path / "b.mp4")
    with (tmp_path / "b.mp4").open("ab") as file:
        file.write(b"\0" * 32)
    settings = [*library.settings, f"models.text={tiny_models['clip']}"]
    wrong_kind = run_cli(["ingest", str(tmp_path / "b.mp4")], settings)
    assert wrong_kind.returncode == 4
    assert "models.text" in wrong_kind.stderr.splitlines()[-1]


def test_models_list_says_what_is_here(library: Library) -> None:
    done = run_cli(["models", "list", "--json"], library.settings)
    assert done.returncode == 0
    rows = {row["role"]: row for row in json.loads(done.stdout)["models"]}
    assert set(rows) == {"image", "speech", "text", "voice"}
    assert "untrained" in rows["image"]["label"]
    assert "untrained" not in rows["text"]["label"]


def test_models_check_loads_each(library: Library) -> None:
    done = run_cli(["models", "check"], library.settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("loaded in") == 4


def test_models_tiny_builds_and_says_untrained(tmp_path: Path) -> None:
    done = run_cli(["models", "tiny", str(tmp_path / "tiny")])
    assert done.returncode == 0, done.stderr
    assert "untrained" in done.stderr
    assert (tmp_path / "tiny" / "tiny-clip" / "config.json").exists()


def test_doctor_finds_the_offline_setting_sound(library: Library) -> None:
    done = run_cli(["doctor", "--json"], library.settings)
    assert done.returncode == 0, done.stdout
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["model image"]["state"] == "warning"
    assert "40 frames" in findings["store"]["detail"]


def test_doctor_names_what_is_missing(tmp_path: Path) -> None:
    settings = [f"models.directory={tmp_path}", "models.image=nobody/nothing", f"store.path={tmp_path / 'store'}"]
    done = run_cli(["doctor"], settings)
    assert done.returncode == 4
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("problem") and "model image" in line]
    assert "models pull" in line


def test_output_cut_off_by_its_reader_is_no_error(library: Library) -> None:
    import subprocess

    from tests.runs import command

    process = subprocess.Popen(
        command(["points", "--vectors"], library.settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert error == ""
