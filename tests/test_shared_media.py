"""The shared collection of real media, in whole runs: every file becomes what its manifest says."""

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.runs import run_cli, settings_for

MEDIA = Path(__file__).parents[2] / "shared" / "media"
pytestmark = pytest.mark.skipif(not MEDIA.is_dir(), reason="the shared media are not here")

ENTRIES: dict[str, dict[str, Any]] = (
    {entry["name"]: entry for entry in json.loads((MEDIA / "manifest.json").read_text())["files"]}
    if MEDIA.is_dir()
    else {}
)
LONG = "magazine-10-minutes_many-speakers-and-scenes_h264-360p.mp4"  # as long as all the others together: left out
NAMES = sorted(name for name in ENTRIES if name != LONG)
WEBB = "webb-telescope-nasa_two-video-two-audio-two-subtitle-streams.mp4"
TRUNCATED = "truncated-download_leaf-and-deer_moov-first-45-percent.mp4"
CORRUPTED = "corrupted-nal-units_test-pattern.mp4"
PHONE_CALL = "phone-call-diane-and-sheila_two-speakers_over-children-and-football_vp9-opus.webm"
REFUSED = {
    "broken_moov-atom-missing.mp4": "broken-header",
    "empty_zero-bytes.webm": "empty-file",
    "jpeg-picture-named-mp4.mp4": "not-media",
}
SHOWN_SECONDS = {WEBB: 13.0}  # its subtitles last longer than its pictures
COLLAR_SECONDS = 0.5  # what the manifest asks for when times are compared with its labels

Intervals = list[tuple[float, float]]


def with_verdict(*verdicts: str) -> list[str]:
    return [name for name in NAMES if ENTRIES[name]["expect"]["verdict"] in verdicts]


@dataclass
class Run:
    """One run over some of the files."""

    code: int
    output: str
    rows: dict[str, dict[str, Any]]  # by name
    totals: dict[str, Any]
    settings: list[str]
    points: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by name of the file, in order of time

    def times(self, name: str, *collections: str) -> Intervals:
        """When the points of a file are, in order."""
        return [
            (point["payload"]["start_seconds"], point["payload"]["end_seconds"])
            for point in self.points.get(name, [])
            if point["collection"] in collections
        ]


def run_over(names: list[str], models: Any, root: Path, *more: str) -> Run:
    settings = settings_for(models, root, *more)
    arguments = ["ingest", *(str(MEDIA / name) for name in names), "--report", str(root / "report.json")]
    done = run_cli(arguments, settings)
    assert "Traceback" not in done.stderr
    report = json.loads((root / "report.json").read_text())
    rows = {Path(row["path"]).name: row for row in report["videos"]}
    run = Run(done.returncode, done.stdout, rows, report["totals"], settings)
    listing = run_cli(["points"], settings)
    assert listing.returncode == 0, listing.stderr
    for point in map(json.loads, listing.stdout.splitlines()):
        run.points.setdefault(Path(point["payload"]["path"]).name, []).append(point)
    for points in run.points.values():
        points.sort(key=lambda point: float(point["payload"]["start_seconds"]))
    return run


def union(intervals: Intervals) -> Intervals:
    merged: Intervals = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def seconds(intervals: Intervals) -> float:
    return sum(end - start for start, end in intervals)


def common_seconds(some: Intervals, others: Intervals) -> float:
    return sum(max(0.0, min(end, last) - max(start, first)) for start, end in some for first, last in others)


@pytest.fixture(scope="module")
def whole(tiny_models: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every file but the longest, indexed once."""
    return run_over(NAMES, tiny_models, tmp_path_factory.mktemp("whole"))


def test_every_file_has_its_row_and_the_run_says_that_some_failed(whole: Run) -> None:
    assert sorted(whole.rows) == NAMES
    assert whole.code == 3
    assert whole.totals["failed"] == len(REFUSED)
    assert whole.totals["partial"] == 2
    assert whole.totals["indexed"] == len(NAMES) - len(REFUSED) - 2
    assert whole.totals["points"] == sum(map(len, whole.points.values()))


@pytest.mark.parametrize("name", with_verdict("reject", "reject_or_single_frame"))
def test_what_is_to_be_refused_is_named_with_its_reason(name: str, whole: Run) -> None:
    row = whole.rows[name]
    assert row["status"] == "failed"
    assert row["error"]["code"] == REFUSED[name]
    assert row["error"]["message"]
    assert row["points"] == 0
    assert name not in whole.points
    assert f"{name} - {REFUSED[name]}: " in whole.output


@pytest.mark.parametrize("name", with_verdict("ok", "ok_no_audio", "ok_no_speech", "ok_audio_only"))
def test_what_is_sound_is_indexed_whole(name: str, whole: Run) -> None:
    row = whole.rows[name]
    assert row["status"] == "indexed"
    assert row["error"] is None
    assert row["gaps"] == []
    assert row["failures"] == []
    assert row["video_id"] == ENTRIES[name]["sha256"]
    assert row["points"] == len(whole.points[name])
    assert {point["payload"]["video_id"] for point in whole.points[name]} == {row["video_id"]}


@pytest.mark.parametrize("name", with_verdict("ok", "ok_no_audio", "ok_no_speech"))
def test_there_is_a_frame_for_every_second(name: str, whole: Run) -> None:
    shown_seconds = SHOWN_SECONDS.get(name, ENTRIES[name]["probe"]["duration_s"])
    times = whole.times(name, "frames")
    assert whole.rows[name]["frames"] == len(times)
    assert abs(len(times) - shown_seconds) <= 1.0
    assert [int(start) for start, _ in times] == list(range(len(times)))
    assert all(start < end <= int(start) + 1 for start, end in times)
    assert times[-1][0] < shown_seconds


@pytest.mark.parametrize("name", with_verdict("ok_no_audio", "partial_or_reject"))
def test_a_video_without_sound_says_so_and_nobody_listened(name: str, whole: Run) -> None:
    row = whole.rows[name]
    assert "no audio stream: no speech" in row["notes"]
    assert (row["text_coverage"], row["voice_coverage"], row["speech_seconds"]) == (None, None, None)
    assert whole.times(name, "speech", "voices") == []


@pytest.mark.parametrize("name", with_verdict("ok_no_speech"))
def test_silence_and_music_give_no_words(name: str, whole: Run) -> None:
    assert whole.rows[name]["speech_seconds"] == 0.0
    assert whole.times(name, "speech", "voices") == []


@pytest.mark.parametrize("name", with_verdict("ok_audio_only"))
def test_sound_alone_gives_no_frames_and_a_note(name: str, whole: Run) -> None:
    assert whole.rows[name]["frames"] == 0
    assert "no video stream: no frames" in whole.rows[name]["notes"]
    assert whole.times(name, "frames") == []
    assert len(whole.times(name, "voices")) > 10


def spoken() -> list[str]:
    return [name for name in NAMES if ENTRIES[name]["content"].get("speech", {}).get("has_speech")]


@pytest.mark.parametrize("name", spoken())
def test_speech_that_is_heard_has_text_and_voice(name: str, whole: Run) -> None:
    row = whole.rows[name]
    assert row["speech_seconds"] > 0
    assert row["text_coverage"] >= 0.95
    assert row["voice_coverage"] >= 0.95
    assert row["speech_segments"] == len(whole.times(name, "speech")) >= 1
    assert row["voice_segments"] == len(whole.times(name, "voices")) >= 1
    length_seconds = ENTRIES[name]["probe"]["duration_s"]
    assert all(0 <= start < end <= length_seconds + 0.1 for start, end in whole.times(name, "speech", "voices"))


def labelled() -> dict[str, Intervals]:
    """When somebody speaks, by the manifest."""
    segments = {name: ENTRIES[name]["content"]["speech"].get("segments", []) for name in spoken()}
    return {name: union([(s["start"], s["end"]) for s in found]) for name, found in segments.items() if found}


@pytest.mark.parametrize("name", labelled())
def test_labelled_speech_is_found_where_the_labels_say(name: str, whole: Run) -> None:
    labels = labelled()[name]
    found = union(whole.times(name, "speech", "voices"))
    voices = union(whole.times(name, "voices"))
    assert common_seconds(labels, found) >= 0.85 * seconds(labels)
    assert common_seconds(labels, voices) >= 0.75 * seconds(labels)  # what is shorter than voice.min_seconds has none
    if not ENTRIES[name]["content"]["speech"].get("partial"):
        wide = union([(start - COLLAR_SECONDS, end + COLLAR_SECONDS) for start, end in labels])
        labelled_voices = [voice for voice in voices if voice[1] <= wide[-1][1]]  # behind the last nobody listened
        assert common_seconds(labelled_voices, wide) >= 0.9 * seconds(labelled_voices) > 0


def test_a_ringing_telephone_is_no_speech(whole: Run) -> None:
    assert min(start for start, _ in whole.times(PHONE_CALL, "speech", "voices")) > 6.68 - COLLAR_SECONDS


def test_of_two_streams_of_a_kind_one_is_indexed_and_the_choice_told(whole: Run) -> None:
    row, points = whole.rows[WEBB], whole.points[WEBB]
    assert any(note.startswith("2 video streams: stream 3 (h264, 480x270) is indexed") for note in row["notes"])
    assert any(note.startswith("2 audio streams: stream 4 (aac, 16000 Hz, eng) is indexed") for note in row["notes"])
    starts = [start for start, _ in whole.times(WEBB, "voices")]
    assert len(set(starts)) == len(starts)
    texts = [point["payload"]["text"] for point in points if point["collection"] == "speech"]
    assert len(set(texts)) == len(texts)


def test_captions_serve_where_there_are_some(whole: Run) -> None:
    speech = [point["payload"] for point in whole.points[WEBB] if point["collection"] == "speech"]
    assert any(note.startswith("captions: stream 2 (mov_text, eng)") for note in whole.rows[WEBB]["notes"])
    assert {payload["source"] for payload in speech} == {"captions"}
    wanted = ENTRIES[WEBB]["content"]["speech"]["segments"]
    found = {round(payload["start_seconds"], 2): payload["text"] for payload in speech}
    assert len(found) == len(speech)
    for segment in wanted:  # the labels leave out who speaks, and write a plain apostrophe
        assert segment["text"].rstrip(".") in found[segment["start"]].replace("’", "'")


def test_what_a_truncated_download_lacks_is_a_gap_and_nothing_is_made_up(whole: Run) -> None:
    row, times = whole.rows[TRUNCATED], whole.times(TRUNCATED, "frames")
    assert row["status"] == "partial"
    assert row["error"] is None, "what is there is indexed: no failure"
    (gap,) = row["gaps"]
    assert gap["reason"].startswith("truncated: ")
    assert gap["end_seconds"] == pytest.approx(24.024)
    assert [int(start) for start, _ in times] == list(range(14))
    assert max(end for _, end in times) <= gap["start_seconds"] == 14.0
    assert f"{TRUNCATED} - 14 frames" in whole.output
    assert "[gap 14.0-24.0 s: truncated" in whole.output


def test_damaged_packets_cost_their_stretch(whole: Run) -> None:
    row, times = whole.rows[CORRUPTED], whole.times(CORRUPTED, "frames")
    assert row["status"] == "partial"
    assert row["gaps"]
    assert all(gap["reason"].startswith("corrupt: ") for gap in row["gaps"])
    lost = [(gap["start_seconds"], gap["end_seconds"]) for gap in row["gaps"]]
    assert common_seconds(times, lost) == 0.0
    assert seconds(union([*times, *lost])) == pytest.approx(5.0, abs=0.1)


# --- other ways to decode ---------------------------------------------------------------------------------------------

SHORT = [
    "jfk-inaugural-speech_over-coffee-pour_hevc-main10-ac3.ts",
    "cups-shell-game_variable-frame-rate_short-speech.mp4",
    "cockatoo_h264-yuv444p_silent-mp3-track.mp4",
    "reader-1688-north-and-south_over-alphabet-blocks_av1-opus.webm",
]


@pytest.fixture(scope="module")
def keyframes(tiny_models: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Pictures only: the sound is the same as in the others."""
    silent = ("models.speech=off", "models.text=off", "models.voice=off")
    root = tmp_path_factory.mktemp("keyframes")
    return run_over([*SHORT, TRUNCATED], tiny_models, root, "decode.sampling=keyframes", *silent)


def test_key_frames_are_fewer_and_follow_each_other_to_the_end(keyframes: Run) -> None:
    assert keyframes.code == 0
    for name in SHORT:
        times = keyframes.times(name, "frames")
        length_seconds = ENTRIES[name]["probe"]["duration_s"]
        assert keyframes.rows[name]["status"] == "indexed"
        assert 1 <= len(times) < length_seconds
        assert times[0][0] == pytest.approx(0.0, abs=0.1)
        assert times[-1][1] == pytest.approx(length_seconds, abs=0.2)
        assert all(end == start for (_, end), (start, _) in itertools.pairwise(times))


def test_key_frames_of_a_truncated_file_end_where_it_ends(keyframes: Run) -> None:
    (gap,) = keyframes.rows[TRUNCATED]["gaps"]
    assert keyframes.rows[TRUNCATED]["status"] == "partial"
    assert gap["reason"].startswith("truncated: ")
    assert (gap["start_seconds"], gap["end_seconds"]) == (pytest.approx(13.48, abs=0.1), pytest.approx(24.024))
    assert keyframes.times(TRUNCATED, "frames")[-1][1] <= gap["start_seconds"]


@pytest.fixture(scope="module")
def by_decord(tiny_models: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_over(SHORT, tiny_models, tmp_path_factory.mktemp("decord"), "decode.backend=decord")


@pytest.mark.parametrize("name", SHORT[:2])
def test_decord_finds_the_same_frames(name: str, by_decord: Run, whole: Run) -> None:
    assert by_decord.rows[name]["status"] == "indexed"
    assert by_decord.times(name, "frames") == whole.times(name, "frames")
    assert by_decord.times(name, "voices") == whole.times(name, "voices")


@pytest.mark.parametrize("name", SHORT[2:])
def test_what_decord_cannot_read_is_told_with_the_setting_and_its_speech_is_indexed(
    name: str, by_decord: Run, whole: Run
) -> None:
    row = by_decord.rows[name]
    assert row["frames"] == 0
    assert by_decord.times(name, "voices") == whole.times(name, "voices")
    (gap,) = row["gaps"]
    assert gap["reason"].startswith("codec-not-allowed: ")
    assert "decode.backend" in gap["reason"]
    assert row["status"] == ("partial" if row["points"] else "failed")
