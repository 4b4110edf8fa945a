"""Bad input, in whole runs: one clear line for each, its code in the report, and everything beside it indexed whole."""

import ctypes
import json
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engine.supervisor import Supervisor
from engine.videos import VideoJob
from tests.media_factory import damage, make_many_streams, make_video, truncate
from tests.runs import Meddler, command, run_cli, run_supervisor, settings_for, stored_points
from tests.test_processes import SLOW, lines_until

PR_CAPBSET_DROP = 24  # prctl(2)
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2  # capabilities(7): what lets root read everything
MIB = 1 << 20
PICTURES_ONLY = ("models.speech=off", "models.text=off", "models.voice=off")  # half as long to load


def as_ordinary_user() -> None:
    """Between fork and exec: from here on permissions count, for root as well."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def permissions_count(directory: Path) -> bool:
    """Whether as_ordinary_user works here: a container may forbid it."""
    closed = directory / "closed"
    closed.touch(mode=0o000)
    reading = ["cat", str(closed)]
    return subprocess.run(reading, preexec_fn=as_ordinary_user, capture_output=True, check=False).returncode != 0


# --- files ------------------------------------------------------------------------------------------------------------


def still_picture(path: Path, codec: str, pix_fmt: str, width: int = 64, height: int = 48) -> Path:
    """One compressed picture and nothing around it."""
    with av.open(str(path), "w", format="image2pipe") as output:
        stream: Any = output.add_stream(codec, rate=1)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        output.mux(stream.encode(av.VideoFrame(width, height, pix_fmt)))
        output.mux(stream.encode())
    return path


def huge_picture(path: Path) -> Path:
    """Two frames of 8192x8192 that take little room in the file, and 200 MB each when they are decoded."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width = stream.height = 8192
        stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
        frame: Any = av.VideoFrame.from_ndarray(np.full((8192 * 3 // 2, 8192), 128, np.uint8), "yuv420p")
        for number in range(2):
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    assert path.stat().st_size < 200_000
    return path


def claim_mp4_duration(path: Path, seconds: float) -> Path:
    """Write a duration into every header of an MP4 (ISO/IEC 14496-12, 8.2.2 and 8.4.2, version 0)."""
    data = bytearray(path.read_bytes())
    for box in (b"mvhd", b"mdhd"):
        at = data.find(box)
        while at >= 0:
            ticks = int.from_bytes(data[at + 16 : at + 20], "big")
            data[at + 20 : at + 24] = round(seconds * ticks).to_bytes(4, "big")
            at = data.find(box, at + 1)
    path.write_bytes(bytes(data))
    return path


def claim_matroska_duration(path: Path, seconds: float) -> Path:
    """Write the Duration element (RFC 9559, 5.1.2.10), in milliseconds, and spoil the tags that would contradict it."""
    data = bytearray(path.read_bytes().replace(b"DURATION", b"XURATION"))
    at = data.index(b"\x44\x89\x88") + 3
    data[at : at + 8] = struct.pack(">d", seconds * 1000)
    path.write_bytes(bytes(data))
    return path


class Collection:
    """A directory of good and bad files, and one run over it as a user whom permissions bind."""

    def __init__(self, root: Path, models: Any, sample: Path) -> None:
        self.settings = settings_for(models, root)
        self.films = root / "films"
        self.films.mkdir()
        self.goods = ["0 good.mp4", "m good.mp4", "z good.mp4"]  # before, between and behind the bad ones
        for number, name in enumerate(self.goods):
            (self.films / name).write_bytes(sample.read_bytes() + bytes(16 * (number + 1)))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self._make_what_is_no_medium(f"http://127.0.0.1:{self.listener.getsockname()[1]}/film.ts")
        self._make_what_is_damaged()
        self._make_what_lies()
        self.odd_names = self._make_odd_names()
        beside = self._make_paths_beside(root)
        self.permissions = permissions_count(root)
        report_file = root / "report.json"
        self.done = subprocess.run(
            [*command(["ingest"], [*self.settings]), "--report", report_file, "--", self.films, *beside],
            capture_output=True, text=True, timeout=150, check=False, cwd=self.films, preexec_fn=as_ordinary_user,
        )  # fmt: skip
        assert report_file.exists(), self.done.stderr
        self.report: dict[str, Any] = json.loads(report_file.read_text())
        self.points = stored_points(self.settings)

    def row(self, name: str) -> dict[str, Any]:
        (row,) = [row for row in self.report["videos"] if row["path"].endswith(f"/{name}") or row["path"] == name]
        return dict(row)

    def starts(self, name: str, collection: str = "frames") -> list[float]:
        """Times of the points of a file."""
        found = [p["payload"] for p in self.points.values() if p["collection"] == collection]
        return sorted(payload["start_seconds"] for payload in found if payload["path"].endswith(f"/{name}"))

    def _make_what_is_no_medium(self, address: str) -> None:
        films, good = self.films, self.films / self.goods[0]
        (films / "empty.mp4").touch()
        (films / "text.mp4").write_text("Some words, and some more of them.\n" * 40)
        (films / "playlist of addresses.mp4").write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{address}\n#EXT-X-ENDLIST\n"
        )
        (films / "playlist of files.mp4").write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{good}\n#EXTINF:9,\n{good.name}\n#EXT-X-ENDLIST\n"
        )
        (films / "concat script.mp4").write_text(f"ffconcat version 1.0\nfile '{good}'\nfile '{address}'\n")
        (films / "session.mp4").write_text(
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 96\r\n"
        )
        still_picture(films / "jpeg.mp4", "mjpeg", "yuvj420p")
        still_picture(films / "png.mp4", "png", "rgb24")

    def _make_what_is_damaged(self) -> None:
        films = self.films
        truncate(make_video(films / "without moov.mp4", seconds=2), 0.9)
        truncate(make_video(films / "truncated.mkv", seconds=10, width=320, height=240), 0.55)
        middle = make_video(films / "corrupt in the middle.mkv", seconds=12, width=320, height=240)
        damage(middle, 0.4, middle.stat().st_size // 5, b"\xa5\x13\x77")
        make_many_streams(films / "2000 streams.mkv", 2000)
        huge_picture(films / "8192x8192.mp4")

    def _make_what_lies(self) -> None:
        films = self.films
        make_video(films / "two frames.mp4", times=[0.0, 0.04])
        claim_mp4_duration(make_video(films / "ten hours.mp4", seconds=5, first_number=100), 36_000)
        claim_mp4_duration(make_video(films / "one second.mp4", seconds=5, first_number=200), 1)
        claim_matroska_duration(make_video(films / "two hours.mkv", seconds=5, first_number=300), 7_200)
        claim_matroska_duration(make_video(films / "one second.mkv", seconds=5, first_number=400), 1)

    def _make_odd_names(self) -> list[bytes]:
        """Two seconds of other numbers under each name."""
        names = [
            b"-rf --help.mp4",
            b"http:x.mp4",
            b"percent%03d%s.mp4",
            b"line\nbreak.mp4",
            b"caf\xe9 \xff.mp4",
            b"'$x'\".mp4",
        ]
        for number, name in enumerate(names):
            made = make_video(self.films / "made.mp4", seconds=2, first_number=1000 + 100 * number)
            os.rename(made, os.fsencode(self.films) + b"/" + name)  # noqa: PTH104 - bytes
        return names

    def _make_paths_beside(self, root: Path) -> list[Path | str]:
        """Paths that are named outright: nothing there, nothing in it, nothing to be read."""
        (root / "no videos").mkdir()
        (root / "no videos" / "notes.txt").write_text("not looked at")
        (root / "closed directory").mkdir(mode=0o000)
        shutil.copy(self.films / self.goods[0], root / "closed film.mp4")
        (root / "closed film.mp4").chmod(0o000)
        os.mkfifo(root / "pipe.mp4")
        named = ["nothing here.mp4", "no videos", "closed directory", "closed film.mp4", "pipe.mp4"]
        return [*(root / name for name in named), "-rf --help.mp4"]  # the last relative, and in the directory as well


@pytest.fixture(scope="module")
def collection(sample_video: Path, tiny_models: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    made = Collection(tmp_path_factory.mktemp("bad"), tiny_models, sample_video)
    yield made
    made.listener.close()


def test_the_run_ends_in_order_and_says_that_some_failed(collection: Collection) -> None:
    assert collection.done.returncode == 3, collection.done.stderr
    assert "Traceback" not in collection.done.stderr
    assert "decoder-died" not in collection.done.stdout


def test_good_files_beside_bad_ones_are_indexed_whole(collection: Collection) -> None:
    for name in collection.goods:
        row = collection.row(name)
        assert (row["status"], row["gaps"], row["failures"], row["error"]) == ("indexed", [], [], None)
        assert row["frames"] == len(collection.starts(name)) == 20
        assert row["speech_segments"] == len(collection.starts(name, "speech")) >= 3
        assert row["voice_segments"] == len(collection.starts(name, "voices")) >= 3


REFUSALS = {
    "empty.mp4": ("empty-file", "empty"),
    "text.mp4": ("not-media", "text"),
    "jpeg.mp4": ("not-media", "a JPEG picture"),
    "png.mp4": ("not-media", "a PNG picture"),
    "playlist of addresses.mp4": ("not-media", "playlist"),
    "playlist of files.mp4": ("not-media", "playlist"),
    "concat script.mp4": ("not-media", "docs/formats.md"),
    "session.mp4": ("not-media", "docs/formats.md"),
    "without moov.mp4": ("broken-header", "unfinished copy"),
    "2000 streams.mkv": ("too-many-streams", "decode.max_streams"),
    "8192x8192.mp4": ("too-many-pixels", "8192x8192 pixels are more than 36000000 (decode.max_pixels)"),
    "nothing here.mp4": ("not-found", "no such file"),
    "no videos": ("no-media", "run.extensions"),
    "pipe.mp4": ("not-a-file", "neither a file nor a directory"),
    "closed directory": ("no-permission", "permission denied"),
    "closed film.mp4": ("no-permission", "no permission"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_indexed_is_named_with_code_and_reason(name: str, collection: Collection) -> None:
    if name.startswith("closed") and not collection.permissions:
        pytest.skip("this process may read everything, and cannot give that up")
    code, words = REFUSALS[name]
    row = collection.row(name)
    assert row["status"] == "failed"
    assert row["error"]["code"] == code
    assert words in row["error"]["message"]
    assert "\n" not in row["error"]["message"]
    assert row["points"] == 0
    assert collection.starts(name) == []
    (line,) = [line for line in collection.done.stdout.splitlines() if f"/{name} - " in line]
    assert f"{name} - {code}: " in line


def test_nobody_followed_an_address(collection: Collection) -> None:
    assert "playlist of addresses" in collection.done.stdout
    with pytest.raises(BlockingIOError):
        collection.listener.accept()


def test_a_truncated_file_is_indexed_up_to_its_end(collection: Collection) -> None:
    row = collection.row("truncated.mkv")
    (gap,) = row["gaps"]
    assert (row["status"], row["error"]) == ("partial", None)
    assert gap["reason"].startswith("truncated: ")
    assert gap["end_seconds"] == pytest.approx(10.0)
    starts = collection.starts("truncated.mkv")
    assert 3 <= row["frames"] == len(starts) <= 8
    assert max(starts) < gap["start_seconds"]


def test_corrupt_packets_in_the_middle_cost_their_stretch_only(collection: Collection) -> None:
    row, starts = collection.row("corrupt in the middle.mkv"), collection.starts("corrupt in the middle.mkv")
    assert (row["status"], row["error"]) == ("partial", None)
    assert all(gap["reason"].partition(":")[0] in ("corrupt", "missing") for gap in row["gaps"])
    lost = [(gap["start_seconds"], gap["end_seconds"]) for gap in row["gaps"]]
    assert lost
    assert 2.0 <= lost[0][0] < lost[-1][1] <= 10.0
    assert {0.0, 1.0, 2.0, 10.0, 11.0} <= {round(start) for start in starts}
    assert not any(first <= start < last for start in starts for first, last in lost)


def test_a_video_of_two_frames_is_one_sample(collection: Collection) -> None:
    row = collection.row("two frames.mp4")
    assert (row["status"], row["frames"], row["gaps"]) == ("indexed", 1, [])
    assert collection.starts("two frames.mp4") == [0.0]


@pytest.mark.parametrize("name", ["ten hours.mp4", "one second.mp4", "one second.mkv"])
def test_a_duration_that_lies_costs_no_frame(name: str, collection: Collection) -> None:
    row = collection.row(name)
    assert (row["status"], row["gaps"]) == ("indexed", [])
    assert collection.starts(name) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_duration_far_too_long_that_nothing_contradicts_is_one_gap(collection: Collection) -> None:
    row = collection.row("two hours.mkv")
    assert collection.starts("two hours.mkv") == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert (row["status"], row["duration_seconds"]) == ("partial", 7200.0)
    assert [(gap["start_seconds"], gap["end_seconds"]) for gap in row["gaps"]] == [(5.0, 7200.0)]
    assert row["gaps"][0]["reason"].startswith("truncated: the video ends at 5.000 s")


def test_files_of_odd_names_are_indexed_and_told_on_one_line(collection: Collection) -> None:
    told = {row["path"].rpartition("/")[2]: row for row in collection.report["videos"]}
    expected = [
        "-rf --help.mp4",
        "http:x.mp4",
        "percent%03d%s.mp4",
        "line\\nbreak.mp4",
        "caf\\xe9 \\xff.mp4",
        "'$x'\".mp4",
    ]
    for name in expected:
        assert told[name]["frames"] == 2, name
        assert collection.starts(name) == [0.0, 1.0], name


def test_a_name_with_a_leading_dash_can_be_given_behind_two_dashes(collection: Collection) -> None:
    (row,) = [row for row in collection.report["videos"] if row["path"] == "-rf --help.mp4"]
    assert row["error"] is None
    assert row["status"] == "unchanged"  # the directory gave it before


# --- files that change while they are read ----------------------------------------------------------------------------


def in_work(supervisor: Supervisor, name: str) -> VideoJob | None:
    board = supervisor.board
    found = [job for job in board.jobs.values() if job.path.endswith(b"/" + name.encode())] if board is not None else []
    return found[0] if found else None


def waiting_spans(supervisor: Supervisor, job: VideoJob) -> int:
    """Frame tasks of a video that no decoder has yet."""
    assert supervisor.board is not None
    under_way = supervisor.board.in_flight()
    return sum(task.kind == "frames" and task not in under_way for task in job.open_tasks.values())


class Changes:
    """What happens to the files of a run, each as soon as its moment has come."""

    def __init__(self, steps: dict[str, Callable[[Supervisor], bool]]) -> None:
        self.steps = steps

    def __call__(self, supervisor: Supervisor) -> bool:
        self.steps = {name: step for name, step in self.steps.items() if not step(supervisor)}
        return not self.steps


class ChangingFiles:
    """One run with a decoder whose files vanish, grow and shrink in its hands."""

    def __init__(self, root: Path, models: Any, sample: Path) -> None:
        self.gone_early = make_video(root / "gone early.mp4", seconds=2, first_number=100)
        self.vanishing = make_video(root / "vanishing.mp4", seconds=60, gop=50)
        self.growing = make_video(root / "growing.ts", seconds=10, first_number=2000)
        self.shrinking = make_video(root / "shrinking.mkv", seconds=60, first_number=2100, gop=50)
        self.good = Path(shutil.copy(sample, root / "good.mp4"))
        more = make_video(root / "more.ts", times=[10 + n / 25 for n in range(250)], first_number=3000)
        self.more = more.read_bytes()
        more.unlink()
        vanishing = self.vanishing.read_bytes()
        self.settings = settings_for(models, root, "decode.span_seconds=10", *PICTURES_ONLY)
        self.paths = [self.gone_early, self.vanishing, self.growing, self.shrinking, self.good]
        changes = Changes(
            {"gone": self._remove_early, "vanish": self._vanish, "grow": self._grow, "shrink": self._shrink}
        )
        meddler = Meddler(changes)
        report = run_supervisor(self.paths, self.settings, meddler)
        assert meddler.done, f"never came to {list(changes.steps)}"
        self.rows = {Path(row["path"]).name: row for row in report["videos"]}
        self.vanishing.write_bytes(vanishing)
        report = run_supervisor(self.paths, self.settings, Meddler())
        self.again = {Path(row["path"]).name: row for row in report["videos"]}

    def _remove_early(self, supervisor: Supervisor) -> bool:
        """It was found; its probe comes when the models are loaded."""
        self.gone_early.unlink()
        return True

    def _vanish(self, supervisor: Supervisor) -> bool:
        """Of its six spans the first has been read, and the decoder may be about to open the second."""
        job = in_work(supervisor, self.vanishing.name)
        if job is None or job.media is None or waiting_spans(supervisor, job) > 4:
            return False
        self.vanishing.unlink()
        return True

    def _grow(self, supervisor: Supervisor) -> bool:
        """It has been probed and hashed."""
        job = in_work(supervisor, self.growing.name)
        if job is None or job.media is None:
            return False
        with self.growing.open("ab") as file:
            file.write(self.more)
        return True

    def _shrink(self, supervisor: Supervisor) -> bool:
        job = in_work(supervisor, self.shrinking.name)
        if job is None or job.media is None or waiting_spans(supervisor, job) > 4:
            return False
        os.truncate(self.shrinking, self.shrinking.stat().st_size // 2)
        return True


@pytest.fixture(scope="module")
def changing(sample_video: Path, tiny_models: Any, tmp_path_factory: pytest.TempPathFactory) -> ChangingFiles:
    return ChangingFiles(tmp_path_factory.mktemp("changing"), tiny_models, sample_video)


def test_a_file_that_is_gone_before_its_probe_is_not_found(changing: ChangingFiles) -> None:
    row = changing.rows["gone early.mp4"]
    assert (row["status"], row["error"]["code"], row["points"]) == ("failed", "not-found", 0)


def test_a_file_that_vanishes_midway_keeps_what_was_read_and_the_rest_is_a_gap(changing: ChangingFiles) -> None:
    row = changing.rows["vanishing.mp4"]
    assert (row["status"], row["error"]["code"]) == ("partial", "not-found")
    (gap,) = row["gaps"]
    assert gap["reason"] == "not-found: there is no such file"
    assert gap["end_seconds"] == pytest.approx(60.0)
    assert gap["start_seconds"] in (10.0, 20.0)
    assert row["frames"] == gap["start_seconds"]


def test_when_it_is_back_it_is_indexed_whole(changing: ChangingFiles) -> None:
    row = changing.again["vanishing.mp4"]
    assert (row["status"], row["frames"], row["gaps"], row["error"]) == ("indexed", 60, [], None)


def test_a_file_that_grows_while_it_is_read_is_said_to_and_indexed_by_the_next_run(changing: ChangingFiles) -> None:
    row, again = changing.rows["growing.ts"], changing.again["growing.ts"]
    assert (row["status"], row["error"]["code"]) == ("partial", "file-changed")
    assert "run again" in row["error"]["message"]
    assert 10 <= row["frames"] <= 20
    assert (again["status"], again["frames"], again["error"]) == ("indexed", 20, None)
    assert again["video_id"] != row["video_id"]


def test_a_file_that_shrinks_while_it_is_read_ends_in_a_gap(changing: ChangingFiles) -> None:
    row, again = changing.rows["shrinking.mkv"], changing.again["shrinking.mkv"]
    assert (row["status"], row["error"]["code"]) == ("partial", "file-changed")
    (gap,) = row["gaps"]
    assert gap["reason"].startswith("truncated: ")
    assert (gap["start_seconds"], gap["end_seconds"]) == (row["frames"], pytest.approx(60.0))
    assert (again["status"], again["frames"], again["error"]) == ("partial", row["frames"], None)


def test_good_files_beside_changing_ones_are_indexed_whole(changing: ChangingFiles) -> None:
    row = changing.rows["good.mp4"]
    assert (row["status"], row["frames"], row["gaps"], row["error"]) == ("indexed", 20, [], None)


# --- the store --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 MiB in memory; its room is used only as it fills."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=400m", "tmpfs", place], capture_output=True, check=False
    )
    if not made or made.returncode != 0:
        pytest.skip("no right to mount a file system")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(disk: Path, free_bytes: int) -> Path:
    """Leave that much room."""
    room = os.statvfs(disk)
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - free_bytes)
    return ballast


def test_a_full_store_is_said_before_any_work(
    small_disk: Path, sample_video: Path, tiny_models: Any, tmp_path: Path
) -> None:
    fill(small_disk, 10 * MIB)
    settings = settings_for(tiny_models, tmp_path, f"store.path={small_disk / 'store'}")
    done = run_cli(["ingest", str(sample_video)], settings)
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert line.startswith("sluice: store-full: ")
    assert "store.path" in line


def test_a_store_that_fills_up_ends_the_run_with_one_line_and_the_next_ends_whole(
    small_disk: Path, sample_video: Path, tiny_models: Any, tmp_path: Path
) -> None:
    store = f"store.path={small_disk / 'store'}"
    settings = settings_for(tiny_models, tmp_path, *SLOW, *PICTURES_ONLY, store, "store.retry_seconds=1")
    process = subprocess.Popen(
        command(["ingest", str(sample_video)], settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines_until(process, "indexing on")
    ballast = fill(small_disk, 32 * MIB)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 4, stderr
    assert "Traceback" not in stderr
    line = stderr.splitlines()[-1]
    assert "store-lost" in line or "store-full" in line  # the latter when it was full before its collections were made
    assert "is full" in line
    assert "store.path" in line
    ballast.unlink()
    report = run_supervisor([sample_video], settings, Meddler())
    (row,) = report["videos"]
    assert (row["status"], row["frames"], row["gaps"]) == ("indexed", 240, [])
    assert len(stored_points(settings)) == row["points"]


def test_a_directory_of_something_else_is_no_store(sample_video: Path, tiny_models: Any, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    done = run_cli(
        ["ingest", str(sample_video)], settings_for(tiny_models, tmp_path, f"store.path={tmp_path / 'photos'}")
    )
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert line.startswith("sluice: store-not-ours: ")
    assert "'cat.jpg'" in line
    assert "set store.path" in line
    assert [entry.name for entry in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("decode.fsp=1", "decode.fps"),
        ("decode.fps=fast", "decode.fps"),
        ("decode.fps=0", "decode.fps"),
        ("speech.captions=never", "speech.captions"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(setting: str, words: str, tmp_path: Path) -> None:
    done = run_cli(["ingest", str(tmp_path)], [setting])
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert words in line
    assert not list(tmp_path.iterdir())
