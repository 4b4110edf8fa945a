"""What is left out of decoding, and that nothing that is needed is: on made orders of packets, and on real ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import skipping
from stages.sampling import Grid, Span
from stages.skipping import Everything, KeyFrames, Restarts, Skipper, Step, first_slice
from tests.media_factory import make_video

FRAME_US = 40_000
WHOLE = Span(0, None, None, None)


@dataclass(frozen=True)
class Packet:
    """A frame that refers to others by their number in order of decoding."""

    number: int
    time_us: int
    is_keyframe: bool = False
    refers_to: tuple[int, ...] = ()
    size: int = 1000
    pts: int | None = 0


class AllKeys(Restarts):
    """Every key frame is a restart."""

    def __init__(self) -> None:
        super().__init__("mpeg4", False, None)


@dataclass
class Decoder:
    """Knows which frames it could show rightly."""

    good: set[int] = field(default_factory=set)  # those at hand
    shown: list[int] = field(default_factory=list)
    order: list[int] = field(default_factory=list)

    def run(self, steps: Sequence[Step]) -> Sequence[Step]:
        for step in steps:
            if step.fresh:
                self.good.clear()
            self.order.append(step.packet.number)
            if all(number in self.good for number in step.packet.refers_to):
                self.good.add(step.packet.number)
                self.shown.append(step.packet.number)
        return steps


@st.composite
def streams(draw: st.DrawFn) -> list[Packet]:
    """Closed and open GOPs of anchors, each with the B-frames that are shown before it, in order of decoding."""
    packets: list[Packet] = []
    time_us, anchor = 0, -1
    for gop in range(draw(st.integers(1, 5))):
        is_open = gop > 0 and draw(st.booleans())
        for position in range(draw(st.integers(1, 12))):
            key = position == 0
            count = draw(st.integers(0, 3)) if (is_open or not key) else 0
            number, before = len(packets), anchor
            shown_us = time_us + count * FRAME_US
            packets.append(Packet(number, shown_us, key, () if key else (before,)))
            packets += [
                Packet(number + 1 + index, time_us + index * FRAME_US, False, (before, number))
                for index in range(count)
            ]
            anchor, time_us = number, shown_us + FRAME_US * draw(st.sampled_from([1, 1, 1, 30]))
    return packets


def samples_of(packets: list[Packet], grid: Grid, span: Span) -> set[int]:
    """The first frame of each cell."""
    first: dict[int, Packet] = {}
    for packet in packets:
        cell = grid.cell_of(packet.time_us)
        if cell not in first or packet.time_us < first[cell].time_us:
            first[cell] = packet
    return {packet.number for packet in first.values() if span.holds(packet.time_us)}


def decoded(packets: list[Packet], skipper: Everything) -> Decoder:
    """What a decoder makes of what is left of them. A wanted frame comes out at once."""
    decoder = Decoder()
    for packet in packets:
        if any(step.wanted for step in decoder.run(skipper.push(packet, packet.time_us))):
            skipper.found()
    decoder.run(skipper.finish())
    return decoder


spans = st.builds(
    lambda start, length: Span(start * 1_000_000, None if length is None else (start + length) * 1_000_000, None, None),
    st.integers(0, 3),
    st.none() | st.integers(1, 5),
)


@given(streams(), st.sampled_from([0.1, 0.5, 1.0, 3.0, 25.0]), spans)
def test_every_sample_is_decoded_rightly(packets: list[Packet], fps: float, span: Span) -> None:
    grid = Grid(fps)
    decoder = decoded(packets, Skipper(grid, span, AllKeys()))
    assert samples_of(packets, grid, span) <= set(decoder.shown)
    assert decoder.order == sorted(set(decoder.order))  # in their order, and none twice


@given(streams(), st.sampled_from([0.1, 1.0, 25.0]))
def test_a_small_limit_only_saves_less(packets: list[Packet], fps: float) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(skipping, "MAX_HELD_PACKETS", 3)
        decoder = decoded(packets, Skipper(Grid(fps), WHOLE, AllKeys()))
    assert samples_of(packets, Grid(fps), WHOLE) <= set(decoder.shown)


def row(count: int, keys: tuple[int, ...], **more: Any) -> list[Packet]:
    """Key frames and frames that refer to the one before."""
    return [Packet(at, at * FRAME_US, at in keys, () if at in keys else (at - 1,), **more) for at in range(count)]


def test_what_follows_the_last_sample_of_a_gop_is_left_out() -> None:
    decoder = decoded(row(100, (0, 40, 80)), Skipper(Grid(1.0), WHOLE, AllKeys()))
    assert decoder.order == [*range(26), *range(40, 76)]


def test_a_gop_without_a_sample_is_left_out() -> None:
    decoder = decoded(row(100, (0, 10, 20, 30, 40, 50)), Skipper(Grid(0.5), WHOLE, AllKeys()))
    assert decoder.order == [0, 1, 50]  # 1: the key frame was not out yet


def test_without_restarts_everything_is_decoded_up_to_the_last_sample() -> None:
    decoder = decoded(row(100, (0, 40, 80)), Skipper(Grid(1.0), WHOLE, Restarts("rv40", False, None)))
    assert decoder.order == list(range(76))


def test_what_is_held_is_bounded_in_bytes() -> None:
    packets = row(40, (0, 20), size=skipping.MAX_HELD_BYTES // 4)
    assert decoded(packets, Skipper(Grid(0.1), WHOLE, AllKeys())).order[:6] == [0, 1, 2, 3, 4, 5]


def test_packets_without_a_time_are_all_decoded() -> None:
    assert len(decoded(row(50, (0, 20), pts=None), Skipper(Grid(1.0), WHOLE, AllKeys())).order) == 50


def test_after_a_loss_any_frame_may_be_a_sample() -> None:
    skipper = Skipper(Grid(1.0), WHOLE, AllKeys())
    first, second, third, fourth, fifth = row(5, (0,))
    assert list(skipper.push(first, 0)) == []  # leading pictures may follow
    assert [step.packet for step in skipper.push(second, second.time_us)] == [first, second]
    skipper.found()
    assert list(skipper.push(third, third.time_us)) == []
    skipper.lost()
    assert [(step.packet, step.wanted) for step in skipper.push(fourth, fourth.time_us)] == [
        (third, False),
        (fourth, True),
    ]
    skipper.found()
    assert list(skipper.push(fifth, fifth.time_us)) == []


def test_a_frame_that_is_not_shown_is_no_sample() -> None:
    skipper = Skipper(Grid(1.0), WHOLE, AllKeys())
    first, second, third = row(3, (0,))
    list(skipper.push(first, 0))
    list(skipper.push(second, second.time_us))
    skipper.found()
    skipper.absent(0)
    assert [step.wanted for step in skipper.push(third, third.time_us)] == [True]


def test_key_frames_are_decoded_each_on_its_own() -> None:
    steps = [step for packet in row(30, (0, 10, 20)) for step in KeyFrames().push(packet, packet.time_us)]
    assert [(step.packet.number, step.alone) for step in steps] == [(0, True), (10, True), (20, True)]


# --- where decoding can begin -----------------------------------------------------------------------------------------


def restarts_in(path: Path) -> list[bool]:
    """Of each key frame of a file, whether it is a restart."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        restarts = Restarts(context.codec.canonical_name, context.codec.intra_only, context.extradata)
        return [restarts.holds(packet) for packet in container.demux(stream) if packet.size and packet.is_keyframe]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4", "mpeg2video"])
def test_key_frames_of_closed_gops_are_restarts(tmp_path: Path, codec: str, ending: str) -> None:
    path = make_video(tmp_path / f"a.{ending}", codec=codec, seconds=3)
    assert restarts_in(path) == [True, True, True]


@pytest.mark.parametrize("codec", ["mjpeg", "prores_ks", "ffv1"])
def test_all_frames_of_some_codecs_are_restarts(tmp_path: Path, codec: str) -> None:
    pix_fmt = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le"}.get(codec, "yuv420p")
    path = make_video(tmp_path / "a.mkv", codec=codec, seconds=1, gop=1, pix_fmt=pix_fmt)
    assert set(restarts_in(path)) == {codec != "ffv1"}  # which may code differences, too


def test_frames_of_a_gradual_refresh_are_none(tmp_path: Path) -> None:
    options = {"x264-params": "intra-refresh=1:scenecut=0"}
    path = make_video(tmp_path / "a.ts", seconds=4, codec_options=options)
    first, *others = restarts_in(path)
    assert first
    assert others
    assert not any(others)


def test_key_frames_that_later_ones_look_behind_are_none_in_h264(tmp_path: Path) -> None:
    options = {"x264-params": "open-gop=1:scenecut=0:bframes=3"}
    assert restarts_in(make_video(tmp_path / "a.mp4", seconds=3, b_frames=3, codec_options=options)) == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("length_bytes", [0, 1, 2, 4])
@given(data=st.binary(max_size=200), codec=st.sampled_from(["h264", "hevc"]))
def test_nonsense_is_no_slice_or_one_of_known_type(length_bytes: int, data: bytes, codec: str) -> None:
    kind = first_slice(data, codec, length_bytes)
    assert kind is None or kind in (range(1, 6) if codec == "h264" else range(32))


def test_units_before_the_picture_are_passed_over() -> None:
    parameters, message, picture = b"\x67abc", b"\x06" + b"\0" * 300, b"\x65slice"
    units = [parameters, message, picture]
    assert first_slice(b"".join(len(unit).to_bytes(2, "big") + unit for unit in units), "h264", 2) == 5
    assert first_slice(b"".join(b"\0\0\1" + unit for unit in units), "h264", 0) == 5
    assert first_slice(b"\0\0\0\x04\x67abc", "h264", 4) is None
