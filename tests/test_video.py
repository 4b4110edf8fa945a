"""Sampled frames of made and of real videos: which, when, how they look, and what is said about damage."""

import itertools
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from stages import pyav_backend
from stages.errors import MediaError
from stages.media import probe
from stages.options import DecodeOptions
from stages.skipping import Step
from stages.video import SampledFrame, plan_spans, read_frames
from tests.media_factory import (
    concatenate,
    damage,
    frame_number,
    make_audio,
    make_video,
    numbered_frame,
    rotate,
    truncate,
)
from transport.messages import FrameFormat, Gap

MEDIA = Path(__file__).parents[2] / "shared" / "media"
OPTIONS = DecodeOptions()
SQUARE = FrameFormat(width=96, height=96, fit="crop")
BACKENDS: tuple[Literal["pyav", "decord"], ...] = ("pyav", "decord")
MODES: tuple[Literal["fps", "keyframes"], ...] = ("fps", "keyframes")
DECORD_KINDS: dict[str, dict[str, Any]] = {
    "h264": {"b_frames": 2},
    "h264-open-gop": {"b_frames": 3, "codec_options": {"x264-params": "open-gop=1:scenecut=0:b-pyramid=normal"}},
    "h264-10-bit": {"pix_fmt": "yuv420p10le"},
    "hevc": {"codec": "libx265", "b_frames": 2},
    "hevc-open-gop": {"codec": "libx265", "b_frames": 3, "codec_options": {"x265-params": "open-gop=1:log-level=none"}},
    "mpeg4": {"codec": "mpeg4", "b_frames": 2},
    "mpeg2": {"codec": "mpeg2video", "b_frames": 2},
    "mpeg1": {"codec": "mpeg1video", "b_frames": 2},
    "mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "vp8": {"codec": "libvpx", "_name": "a.webm"},
    "vp9": {"codec": "libvpx-vp9", "_name": "a.webm"},
}
KINDS = DECORD_KINDS | {
    "h264-444": {"pix_fmt": "yuv444p"},
    "h264-422-odd": {"pix_fmt": "yuv422p", "width": 66, "height": 50},
    "h264-ts": {"b_frames": 2, "_name": "a.ts"},
    "h264-flv": {"b_frames": 2, "_name": "a.flv"},
    "h264-intra": {"gop": 1},
    "mpeg4-avi": {"codec": "mpeg4", "_name": "a.avi"},
    "mpeg2-ps": {"codec": "mpeg2video", "b_frames": 2, "_name": "a.mpg"},
    "mpeg2-mxf": {"codec": "mpeg2video", "_name": "a.mxf"},
    "prores": {"codec": "prores_ks", "pix_fmt": "yuv422p10le", "_name": "a.mov"},
    "wmv": {"codec": "wmv2", "_name": "a.wmv"},
    "ffv1-live": {"codec": "ffv1", "_name": "a.mkv", "live": True},
    "av1": {"codec": "libsvtav1", "width": 128, "height": 96, "_name": "a.webm"},
    "rgb": {"codec": "qtrle", "pix_fmt": "rgb24", "_name": "a.mov"},
}
Sample = SampledFrame | Gap


def samples(
    path: Path,
    start: float = 0.0,
    end: float | None = None,
    frame_format: FrameFormat = SQUARE,
    options: DecodeOptions = OPTIONS,
) -> list[Sample]:
    media = probe(bytes(path), options)
    return list(read_frames(bytes(path), media, start, end, frame_format, options))


def frames(out: list[Sample]) -> list[SampledFrame]:
    return [sample for sample in out if isinstance(sample, SampledFrame)]


def gaps(out: list[Sample]) -> list[tuple[float, float, str]]:
    """(start, end, code) of each gap."""
    return [(it.start_seconds, it.end_seconds, it.reason.split(":")[0]) for it in out if isinstance(it, Gap)]


def shown(out: list[Sample]) -> list[tuple[float, int]]:
    """(start, number of the frame) of each sample."""
    return [(frame.start_seconds, frame_number(frame.pixels)) for frame in frames(out)]


def as_data(out: list[Sample]) -> list[tuple[float, float, bytes | str]]:
    return [(it.start_seconds, it.end_seconds, it.reason if isinstance(it, Gap) else it.pixels.tobytes()) for it in out]


def by_spans(path: Path, options: DecodeOptions, duration: float) -> list[Sample]:
    """Cut as for `fps`, so that there are several of key frames, too."""
    spans = plan_spans(duration, msgspec.structs.replace(options, sampling="fps"))
    assert len(spans) > 1
    return list(itertools.chain.from_iterable(samples(path, *span, options=options) for span in spans))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One video of 5 seconds of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    paths = {}
    for kind, arguments in KINDS.items():
        settings = {key: value for key, value in arguments.items() if key != "_name"}
        (folder / kind).mkdir()
        paths[kind] = make_video(folder / kind / str(arguments.get("_name", "a.mp4")), seconds=5, **settings)
    return paths


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_sampled_at_the_right_times(kind: str, made: dict[str, Path]) -> None:
    out = samples(made[kind])
    late = 1 if kind in ("mpeg4-avi",) else 0
    assert gaps(out) == []
    assert [number for _, number in shown(out)] == [0, 25, 50, 75, 100]
    assert [frame.start_seconds for frame in frames(out)] == pytest.approx([0, 1, 2, 3, 4], abs=0.04 * late + 1e-3)
    assert all(frame.end_seconds > frame.start_seconds for frame in frames(out))


@pytest.mark.parametrize("sampling", MODES)
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"mpeg2-ps"}))
def test_spans_give_what_one_pass_gives(
    kind: str, sampling: Literal["fps", "keyframes"], made: dict[str, Path]
) -> None:
    options = DecodeOptions(sampling=sampling, fps=3.0, span_seconds=1.0)
    assert as_data(by_spans(made[kind], options, 5.0)) == as_data(samples(made[kind], options=options))


@pytest.mark.parametrize("kind", KINDS)
def test_leaving_out_what_follows_a_sample_changes_nothing(kind: str, made: dict[str, Path]) -> None:
    """GOPs of one second: at 0.6 frames a second some hold no sample, and others end long after theirs."""
    skipped = samples(made[kind], options=DecodeOptions(fps=0.6))
    assert as_data(skipped) == as_data(samples(made[kind], options=DecodeOptions(fps=0.6, skip="none")))
    assert len(skipped) == 3


@pytest.mark.parametrize("kind", ["h264", "hevc", "vp9", "mjpeg", "prores"])
def test_sparse_samples_need_few_packets(kind: str, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Step] = []
    decode = pyav_backend._Decoding._decode

    def counted(decoding: pyav_backend._Decoding, step: Step) -> Iterator[Sample]:
        decoded.append(step)
        return decode(decoding, step)

    monkeypatch.setattr(pyav_backend._Decoding, "_decode", counted)
    assert [number for _, number in shown(samples(made[kind], options=DecodeOptions(fps=0.5)))] == [0, 50, 100]
    assert len(decoded) <= 3 * 4  # of 125; some come before a decoder gives its first picture


@pytest.mark.parametrize("fps", [0.3, 1.0, 7.0, 12.5, 25.0, 60.0])
@pytest.mark.parametrize("kind", ["h264-open-gop", "hevc-open-gop", "mpeg2-ps", "vp8"])
def test_skipping_changes_nothing(kind: str, fps: float, made: dict[str, Path]) -> None:
    skipped = samples(made[kind], options=DecodeOptions(fps=fps))
    whole = samples(made[kind], options=DecodeOptions(fps=fps, skip="none"))
    assert as_data(skipped) == as_data(whole)
    assert [number for _, number in shown(skipped)] == sorted({number for _, number in shown(whole)})


def test_times_of_a_programme_stream_are_nearly_right_behind_a_seek(made: dict[str, Path]) -> None:
    """FFmpeg interpolates most of them, and begins with a wrong delay."""
    options = DecodeOptions(fps=3.0, span_seconds=1.0)
    parts, whole = shown(by_spans(made["mpeg2-ps"], options, 5.0)), shown(samples(made["mpeg2-ps"], options=options))
    assert len(parts) == len(whole)
    assert [start for start, _ in parts] == pytest.approx([start for start, _ in whole], abs=0.05)
    assert all(abs(a[1] - b[1]) <= 3 for a, b in zip(parts, whole, strict=True))


def test_key_frames_last_until_the_next(made: dict[str, Path]) -> None:
    out = samples(made["h264"], options=DecodeOptions(sampling="keyframes"))
    assert shown(out) == [(0.0, 0), (1.0, 25), (2.0, 50), (3.0, 75), (4.0, 100)]
    assert [frame.end_seconds for frame in frames(out)] == [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize("kind", DECORD_KINDS)
@pytest.mark.parametrize("fps", [1.0, 7.0])
def test_decord_gives_what_pyav_gives(kind: str, fps: float, made: dict[str, Path]) -> None:
    ours, theirs = (samples(made[kind], options=DecodeOptions(fps=fps, backend=backend)) for backend in BACKENDS)
    assert shown(theirs) == shown(ours)
    assert [it.end_seconds for it in theirs] == [it.end_seconds for it in ours]
    distance = [
        np.abs(a.pixels.astype(int) - b.pixels).mean() for a, b in zip(frames(ours), frames(theirs), strict=True)
    ]
    assert max(distance) < 12


@pytest.mark.parametrize("kind", DECORD_KINDS)
@pytest.mark.parametrize("sampling", MODES)
def test_spans_give_what_one_pass_gives_with_decord(
    kind: str, sampling: Literal["fps", "keyframes"], made: dict[str, Path]
) -> None:
    options = DecodeOptions(sampling=sampling, fps=3.0, span_seconds=2.0, backend="decord")
    assert as_data(by_spans(made[kind], options, 5.0)) == as_data(samples(made[kind], options=options))


@pytest.mark.parametrize("kind", ["av1", "h264-444", "prores", "rgb"])
def test_decord_refuses_what_it_cannot_read(kind: str, made: dict[str, Path]) -> None:
    with pytest.raises(MediaError, match=r'set decode\.backend = "pyav"') as caught:
        samples(made[kind], options=DecodeOptions(backend="decord"))
    assert caught.value.code == "codec-not-allowed"


def test_decord_refuses_a_gop_that_it_could_not_hold(made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.decord_backend.MAX_GOP_FRAMES", 20)
    with pytest.raises(MediaError, match=r"decode\.backend") as caught:
        samples(made["h264"], options=DecodeOptions(backend="decord"))
    assert caught.value.code == "gop-too-large"


@pytest.mark.parametrize("backend", BACKENDS)
def test_time_comes_from_time_stamps(backend: Literal["pyav", "decord"], tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.2, 1.9, 2.0, 2.05, 6.5, 6.6]
    path = make_video(tmp_path / "vfr.mp4", times=times)
    assert shown(samples(path, options=DecodeOptions(backend=backend))) == [(0.0, 0), (1.9, 3), (2.0, 4), (6.5, 6)]


def test_variable_frame_rate_is_cut_into_spans_as_in_one_pass(tmp_path: Path) -> None:
    times = [number / 30 for number in range(60)] + [2 + number / 5 for number in range(20)] + [6.01, 9.5]
    path = make_video(tmp_path / "vfr.mp4", times=times, b_frames=2)
    options = DecodeOptions(fps=4.0, span_seconds=1.0)
    whole = samples(path, options=options)
    assert as_data(by_spans(path, options, 9.6)) == as_data(whole)
    assert gaps(whole) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_frames_are_enough(backend: Literal["pyav", "decord"], tmp_path: Path) -> None:
    path = make_video(tmp_path / "two.mp4", times=[0.0, 0.04])
    out = samples(path, options=DecodeOptions(backend=backend))
    assert shown(out) == [(0.0, 0)]
    assert gaps(out) == []
    assert len(frames(samples(path, options=DecodeOptions(backend=backend, fps=25.0)))) == 2


@pytest.mark.parametrize("codec_threads", [1, 2])
def test_threads_change_nothing(codec_threads: int, made: dict[str, Path]) -> None:
    out = samples(made["h264"], options=DecodeOptions(threads=codec_threads))
    assert as_data(out) == as_data(samples(made["h264"]))


def quadrants(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Red, green / blue, white."""
    del number
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (255, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 255, 0)
    picture[height // 2 :, : width // 2] = (0, 0, 255)
    picture[height // 2 :, width // 2 :] = 255
    return picture


def corners(pixels: NDArray[np.uint8]) -> str:
    """Colours of the quadrants, clockwise from the upper left: R, G, W, B."""
    height, width = pixels.shape[:2]
    names = {(1, 0, 0): "R", (0, 1, 0): "G", (0, 0, 1): "B", (1, 1, 1): "W"}
    places = [(1, 1), (1, 3), (3, 3), (3, 1)]
    return "".join(names[tuple((pixels[height * y // 4, width * x // 4] > 127).astype(int))] for y, x in places)


@pytest.mark.parametrize("size", [64, 50])  # as large as it is stored, and not
@pytest.mark.parametrize("fit", ["crop", "stretch"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("clockwise", "expected"), [(0, "RGWB"), (90, "BRGW"), (180, "WBRG"), (270, "GWBR")])
def test_turned_video_comes_out_upright(
    clockwise: int,
    expected: str,
    size: int,
    backend: Literal["pyav", "decord"],
    fit: Literal["crop", "stretch"],
    tmp_path: Path,
) -> None:
    path = rotate(make_video(tmp_path / "a.mp4", seconds=0.2, paint=quadrants), clockwise)
    shape = FrameFormat(width=40, height=size, fit=fit)
    (frame,) = frames(samples(path, frame_format=shape, options=DecodeOptions(backend=backend)))
    assert frame.pixels.shape == (size, 40, 3)
    assert corners(frame.pixels) == expected


def test_mirrored_video_comes_out_as_it_was_meant(tmp_path: Path) -> None:
    path = rotate(make_video(tmp_path / "a.mp4", seconds=0.2, paint=quadrants), 0, mirror=True)
    (frame,) = frames(samples(path))
    assert corners(frame.pixels) == "GRBW"
    with pytest.raises(MediaError, match=r"decode\.backend"):
        samples(path, options=DecodeOptions(backend="decord"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_wide_pixels_are_cropped_as_they_are_shown(backend: Literal["pyav", "decord"], tmp_path: Path) -> None:
    def bars(number: int, width: int, height: int) -> NDArray[np.uint8]:
        picture = np.zeros((height, width, 3), np.uint8)
        picture[:, width // 4 : width * 3 // 4] = (
            255  # the middle half: with 2:1 pixels, as wide as the picture is high
        )
        return picture

    path = make_video(tmp_path / "a.mp4", width=64, height=64, paint=bars, seconds=0.2, sample_aspect_ratio=Fraction(2))
    (frame,) = frames(samples(path, options=DecodeOptions(backend=backend)))
    assert (frame.pixels[:, 3:-3] > 200).all()


def test_the_resolution_may_change_in_the_middle(tmp_path: Path) -> None:
    first = make_video(tmp_path / "a.ts", seconds=2)
    times = [2 + number / 25 for number in range(50)]
    second = make_video(tmp_path / "b.ts", times=times, width=160, height=90, first_number=50)
    out = samples(concatenate(tmp_path / "c.ts", first, second))
    assert [number for _, number in shown(out)] == [0, 25, 50, 75]
    assert {frame.pixels.shape for frame in frames(out)} == {(96, 96, 3)}


def test_a_frame_that_grows_beyond_the_limit_is_a_gap(tmp_path: Path) -> None:
    first = make_video(tmp_path / "a.ts", seconds=2)
    times = [2 + number / 25 for number in range(50)]
    second = make_video(tmp_path / "b.ts", times=times, width=320, height=240, first_number=50)
    path = concatenate(tmp_path / "c.ts", first, second)
    options = DecodeOptions(max_pixels=64 * 48 * 4)
    media = probe(bytes(path), options)
    out = list(read_frames(bytes(path), media, 0.0, None, SQUARE, options))
    assert [number for _, number in shown(out)] == [0, 25]
    ((start, _, _),) = gaps(out)
    assert start == pytest.approx(2.0)


@pytest.mark.parametrize("sampling", MODES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_truncated_file_gives_what_is_there_and_a_gap(
    backend: Literal["pyav", "decord"], sampling: Literal["fps", "keyframes"], tmp_path: Path
) -> None:
    path = truncate(make_video(tmp_path / "a.mkv", seconds=10, width=320, height=240), 0.55)
    out = samples(path, options=DecodeOptions(backend=backend, sampling=sampling))
    assert 3 <= len(frames(out)) <= 8
    assert all(number == round(start * 25) for start, number in shown(out))
    ((start, end, code),) = gaps(out)
    assert code == "truncated"
    assert end == pytest.approx(10.0)
    assert start >= frames(out)[-1].end_seconds


def test_spans_behind_the_end_of_a_truncated_file_are_gaps(tmp_path: Path) -> None:
    path = truncate(make_video(tmp_path / "a.mkv", seconds=10, width=320, height=240), 0.55)
    assert gaps(samples(path, 8.0, 9.0)) == [(8.0, 9.0, "truncated")]
    assert gaps(samples(path, 8.0, None)) == [(8.0, 10.0, "truncated")]


@pytest.mark.parametrize("fill", [b"\0", b"\xa5\x13\x77"], ids=["zeros", "noise"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_damage_in_the_middle_costs_its_stretch_only(
    name: str, backend: Literal["pyav", "decord"], fill: bytes, tmp_path: Path
) -> None:
    path = make_video(tmp_path / name, seconds=12, width=320, height=240)
    damage(path, 0.4, path.stat().st_size // 5, fill)
    out = samples(path, options=DecodeOptions(backend=backend))
    numbers = dict(shown(out))
    assert all(abs(number - start * 25) <= 1 for start, number in numbers.items())
    assert {0.0, 1.0, 2.0, 3.0} <= {round(start) for start in numbers}
    assert max(numbers) >= 10.0
    missing = [gap for gap in gaps(out) if gap[2] in ("corrupt", "missing")]
    assert missing
    assert 2.0 <= missing[0][0] < missing[-1][1] <= 10.0
    covered = [(it.start_seconds, it.end_seconds) for it in out]
    assert all(later[0] - earlier[1] < 1.0 for earlier, later in itertools.pairwise(covered))


def test_a_video_of_which_nothing_can_be_decoded_is_one_gap(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=4, codec_options={"preset": "veryfast"})
    data = path.read_bytes()
    place = data.index(b"mdat") + 4
    size = int.from_bytes(data[place - 8 : place - 4], "big") - 8
    path.write_bytes(data[:place] + bytes(size) + data[place + size :])
    assert gaps(samples(path)) == [(0.0, 4.0, "corrupt")]


def test_a_pause_of_a_video_whose_frames_last_is_no_gap(tmp_path: Path) -> None:
    """A recording of a still screen: a frame every half minute."""
    path = make_video(tmp_path / "a.mp4", times=[0.0, 0.04, 0.08, 30.0, 60.0, 60.04])
    out = samples(path)
    assert gaps(out) == []
    assert [start for start, _ in shown(out)] == [0.0, 30.0, 60.0]
    assert samples(path, 10.0, 20.0) == []


def test_a_file_that_vanishes_midway_is_still_read(made: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(made["h264"].read_bytes())
    reading = read_frames(bytes(path), probe(bytes(path), DecodeOptions()), 0.0, None, SQUARE, DecodeOptions())
    assert isinstance(next(reading), SampledFrame)
    path.unlink()
    assert len(list(reading)) == 4


def test_a_file_that_was_exchanged_for_another_is_refused(made: dict[str, Path], tmp_path: Path) -> None:
    media = probe(bytes(made["h264"]), DecodeOptions())
    other = make_audio(tmp_path / "a.m4a", seconds=1)
    with pytest.raises(MediaError, match="changed since"):
        list(read_frames(bytes(other), media, 0.0, None, SQUARE, DecodeOptions()))


def test_a_read_error_in_the_middle_is_told(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=10, width=640, height=480)
    media = probe(bytes(path), DecodeOptions())

    def failing(job: object, source: Iterator[object]) -> Iterator[object]:
        yield next(source)
        raise OSError(5, "Input/output error")

    reading = read_frames(bytes(path), media, 0.0, None, SQUARE, DecodeOptions())
    original = av.container.InputContainer.demux
    monkeypatch.setattr("stages.demux._demux", lambda job: failing(job, original(job.container, job.stream)))
    with pytest.raises(MediaError, match="Input/output error") as caught:
        list(reading)
    assert caught.value.code == "read-error"


def test_a_file_without_video_is_refused(tmp_path: Path) -> None:
    path = make_audio(tmp_path / "a.m4a", seconds=1)
    with pytest.raises(MediaError) as caught:
        samples(path)
    assert caught.value.code == "no-streams"


def test_progress_is_told_in_rising_seconds(made: dict[str, Path]) -> None:
    beats: list[float] = []
    path, options = bytes(made["h264"]), DecodeOptions()
    list(read_frames(path, probe(path, options), 0.0, None, SQUARE, options, beats.append))
    assert len(beats) >= 3
    assert beats[0] == 0.0
    assert beats[-1] >= 3.0


def test_reading_is_lazy_and_closes_the_file(made: dict[str, Path]) -> None:
    path, options = bytes(made["h264"]), DecodeOptions()
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    reading = read_frames(path, probe(path, options), 0.0, None, SQUARE, options)
    next(reading)
    assert len(list(descriptors.iterdir())) == before + 1
    reading.close()  # type: ignore[attr-defined]
    assert len(list(descriptors.iterdir())) == before


def test_pixels_are_contiguous_rgb_of_the_size_asked_for(made: dict[str, Path]) -> None:
    for shape in (FrameFormat(width=50, height=30, fit="crop"), FrameFormat(width=50, height=30, fit="stretch")):
        (frame, *_) = frames(samples(made["h264"], frame_format=shape))
        assert frame.pixels.shape == (30, 50, 3)
        assert frame.pixels.dtype == np.uint8
        assert frame.pixels.flags.c_contiguous


def test_pixels_look_like_what_was_filmed(made: dict[str, Path]) -> None:
    (frame, *_) = frames(samples(made["h264-444"], frame_format=FrameFormat(width=64, height=48, fit="stretch")))
    assert np.abs(frame.pixels.astype(int) - numbered_frame(0, 64, 48)).mean() < 6


@pytest.mark.skipif(not MEDIA.is_dir(), reason="the shared media are not here")
@pytest.mark.parametrize("sampling", MODES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_shared_media_are_read_as_their_manifest_says(
    backend: Literal["pyav", "decord"], sampling: Literal["fps", "keyframes"]
) -> None:
    options = DecodeOptions(backend=backend, sampling=sampling)
    for entry in json.loads((MEDIA / "manifest.json").read_text())["files"]:
        name, verdict = entry["name"], entry["expect"]["verdict"]
        refused = backend == "decord" and ("av1" in name or "yuv444p" in name)
        long = entry["bytes"] > 2_500_000 and (sampling, backend) != ("keyframes", "pyav")
        if verdict == "reject" or "jpeg" in name or "audio-only" in name or long or refused:
            continue
        out = samples(MEDIA / name, options=options)
        assert frames(out), name
        assert bool(gaps(out)) == ("partial" in verdict and (sampling == "fps" or "truncated" in name)), name
        media = probe(bytes(MEDIA / name), options)
        assert media.video is not None
        assert media.video.duration_seconds is not None
        if sampling == "fps" and not gaps(out):
            assert abs(len(frames(out)) - media.video.duration_seconds) <= 1.1, name


@pytest.mark.skipif(not MEDIA.is_dir(), reason="the shared media are not here")
def test_a_truncated_download_is_indexed_up_to_its_end() -> None:
    out = samples(MEDIA / "truncated-download_leaf-and-deer_moov-first-45-percent.mp4")
    assert len(frames(out)) == 14
    assert gaps(out) == [(14.0, 24.024, "truncated")]


@pytest.mark.skipif(not MEDIA.is_dir(), reason="the shared media are not here")
def test_old_444_video_is_right_behind_a_seek() -> None:
    """Without the first packet of the file, decoders read x264's 4:4:4 of before build 151 as noise."""
    path = MEDIA / "cockatoo_h264-yuv444p_silent-mp3-track.mp4"
    assert as_data(samples(path, 8.0, 11.0)) == as_data(samples(path))[8:11]
