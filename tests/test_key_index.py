"""Key frame sampling of MP4 and QuickTime reads key frames only, and gives what reading everything gives."""

from pathlib import Path
from typing import Any

import av
import pytest

from stages import demux
from stages.options import DecodeOptions
from tests.media_factory import damage, make_video, truncate
from tests.test_video import as_data, gaps, samples, shown

KEYS = DecodeOptions(sampling="keyframes")
KINDS: dict[str, dict[str, Any]] = {
    "closed.mp4": {"b_frames": 2},
    "open.mp4": {"b_frames": 3, "codec_options": {"x264-params": "open-gop=1:scenecut=0:bframes=3"}},
    "open-hevc.mp4": {"b_frames": 3, "codec": "libx265", "codec_options": {"x265-params": "open-gop=1:log-level=none"}},
    "mpeg4.mov": {"b_frames": 2, "codec": "mpeg4"},
    "times.mp4": {"b_frames": 2, "times": [0, 0.04, 0.5, 0.54, 0.58, 2, 2.04, 4, 4.5, 4.54, 5, 6, 6.04]},
}


@pytest.fixture(params=KINDS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A video with a key frame every 20 or every 4 frames."""
    name = str(request.param)
    return make_video(tmp_path / name, seconds=6, gop=4 if name.startswith("times") else 20, **KINDS[name])


def in_parts(path: Path) -> list[Any]:
    spans = ((0.0, 2.5), (2.5, 4.0), (4.0, None))
    return [each for start, end in spans for each in as_data(samples(path, start, end, options=KEYS))]


def read_by_index(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Notes of each job whether it is read by the index."""
    asked: list[bool] = []
    is_known_complete = demux._is_known_complete

    def noting(job: demux.Job) -> bool:
        asked.append(is_known_complete(job))
        return asked[-1]

    monkeypatch.setattr(demux, "_is_known_complete", noting)
    return asked


def test_reading_by_the_index_gives_what_reading_everything_gives(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = read_by_index(monkeypatch)
    whole, parts = as_data(samples(path, options=KEYS)), in_parts(path)
    assert asked == [True] * 4
    monkeypatch.setattr(demux, "_is_known_complete", lambda job: False)
    assert whole == as_data(samples(path, options=KEYS))
    assert parts == in_parts(path)
    assert len(whole) >= 3


def test_where_the_index_leads_astray_everything_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = as_data(samples(path, options=KEYS)), in_parts(path)
    monkeypatch.setattr(demux, "pts_lag", lambda stream: 0)  # which B-frames make it not be
    assert as_data(samples(path, options=KEYS)) == whole
    assert in_parts(path) == parts


def test_only_key_frames_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=6, gop=50)
    taken: list[bool] = []
    timed = demux._timed

    def noting(job: demux.Job, packet: Any) -> demux.Read:
        taken.append(packet.is_keyframe)
        return timed(job, packet)

    monkeypatch.setattr(demux, "_timed", noting)
    assert [number for _, number in shown(samples(path, options=KEYS))] == [0, 50, 100]
    assert taken == [True, True, True]


def test_a_file_that_is_cut_off_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = faststart(make_video(tmp_path / "a.mp4", seconds=6, gop=20), tmp_path / "fast.mp4")
    truncate(path, 0.6)
    asked = read_by_index(monkeypatch)
    out = samples(path, options=KEYS)
    assert asked == [False]
    assert [code for *_, code in gaps(out)] == ["truncated"]


def test_a_damaged_key_frame_is_a_gap(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=6, gop=50, width=320, height=180)
    damage(path, 0.45, 3000)
    out = samples(path, options=KEYS)
    assert shown(out)[0] == (0.0, 0)
    assert out[-1].end_seconds == pytest.approx(6.0, abs=0.05)


def test_other_containers_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = read_by_index(monkeypatch)
    for name in ("a.mkv", "a.ts", "a.avi"):
        assert len(shown(samples(make_video(tmp_path / name, seconds=3), options=KEYS))) == 3
    assert asked == [False] * 3


def faststart(path: Path, target: Path) -> Path:
    """The same with its index in front."""
    with av.open(str(path)) as source, av.open(str(target), "w", options={"movflags": "+faststart"}) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    return target
