"""Small media files for tests, made with PyAV.

    path = make_video(tmp_path / "a.mp4", seconds=4)              # H.264, 64x48, 25 frames a second
    make_video(tmp_path / "b.webm", codec="libvpx-vp9", audio=True)
    make_video(tmp_path / "c.mp4", times=[0, 0.5, 3.0])           # variable frame rate: when each frame is shown
    make_audio(tmp_path / "d.m4a", seconds=3)
    damage(path, 0.5, 2000); truncate(path, 0.7); rotate(path, 90)

Every frame carries its number in a code of black and white blocks, which survives compression, scaling and both fits:
`frame_number(pixels)` reads it back, so that a test can tell which frame it was given.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

BITS = 12  # of the frame number: a grid of 4 by 3 blocks in the middle of the picture
_TICKS = 90_000  # of our time base: exact for all usual rates
_FAST: dict[str, dict[str, str]] = {
    "libx264": {"preset": "veryfast", "x264-params": "scenecut=0"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:scenecut=0:pools=1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
}
Paint = Callable[[int, int, int], NDArray[np.uint8]]  # number, width, height → uint8 RGB [height, width, 3]


def numbered_frame(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """A picture [height, width, 3] that shows its number: grey, with the code in the central square."""
    picture = np.full((height, width, 3), 96, np.uint8)
    side = min(width, height)
    top, left = (height - side) // 2, (width - side) // 2
    for bit in range(BITS):
        row, column = divmod(bit, 4)
        rows = slice(top + side * row // 3, top + side * (row + 1) // 3)
        columns = slice(left + side * column // 4, left + side * (column + 1) // 4)
        picture[rows, columns] = 235 if number >> bit & 1 else 16
    return picture


def frame_number(pixels: NDArray[np.uint8]) -> int:
    """The number in a square sample of a numbered frame (fit = crop)."""
    height, width = pixels.shape[:2]
    number = 0
    for bit in range(BITS):
        row, column = divmod(bit, 4)
        value = int(pixels[int((row + 0.5) * height / 3), int((column + 0.5) * width / 4)].mean())
        number |= (value > 128) << bit
    return number


def make_video(
    path: Path,
    *,
    codec: str = "libx264",
    seconds: float = 4.0,
    fps: int = 25,
    times: Sequence[float] | None = None,
    width: int = 64,
    height: int = 48,
    gop: int = 25,
    b_frames: int = 0,
    pix_fmt: str = "yuv420p",
    sample_aspect_ratio: Fraction | None = None,
    first_number: int = 0,
    paint: Paint = numbered_frame,
    codec_options: dict[str, str] | None = None,
    format: str | None = None,
    audio: bool = False,
    audio_seconds: float | None = None,
    captions: Sequence[tuple[float, float, str]] = (),
    videos: int = 1,
    default_video: int | None = None,
    colour: tuple[int, int] | None = None,
    live: bool = False,
) -> Path:
    """Write a video of numbered frames; the container follows the file's ending, or `format`.

    Args:
        times: seconds at which the frames are shown, instead of an even rate of `fps` for `seconds`.
        gop: frames between key frames.
        codec_options: passed to the encoder, over our own for speed.
        audio: add a tone (AAC, or Opus in WebM) of `audio_seconds`, or as long as the video.
        captions: (start, end, text) of a SubRip track; Matroska only.
        videos: number of equal video streams; `default_video` is the index of the one that is marked as default.
        colour: AVColorSpace and AVColorRange to be written.
        live: as a stream is written: no duration, no index; Matroska only.
    """
    shown = list(times) if times is not None else [number / fps for number in range(math.ceil(seconds * fps))]
    with av.open(str(path), "w", format=format, options={"live": "1"} if live else {}) as output:
        streams = [_add_video(output, codec, fps, width, height, gop, b_frames, pix_fmt) for _ in range(videos)]
        for index, stream in enumerate(streams):
            context = stream.codec_context
            context.options = {**_FAST.get(codec, {}), **(codec_options or {})}
            if sample_aspect_ratio is not None:
                context.sample_aspect_ratio = sample_aspect_ratio
            if colour is not None:
                context.colorspace, context.color_range = colour
            if default_video is not None:
                stream.disposition = Disposition.default if index == default_video else Disposition(0)
        sound = _add_audio(output) if audio else None
        text = output.add_mux_stream("subrip") if captions else None
        for number, second in enumerate(shown):
            for stream in streams:
                output.mux(stream.encode(_frame(number + first_number, second, width, height, pix_fmt, paint, colour)))
        for stream in streams:
            output.mux(stream.encode())
        if sound is not None:
            _write_tone(output, sound, audio_seconds if audio_seconds is not None else shown[-1] + 1 / fps)
        for start, end, words in captions:
            output.mux(_caption(text, start, end, words))
    return path


def make_audio(path: Path, *, seconds: float = 3.0, cover: bool = False) -> Path:
    """Write a file with sound alone: AAC, MP3, … by its ending. `cover`: with a picture, as music files have."""
    with av.open(str(path), "w") as output:
        sound = _add_audio(output)
        picture: Any = None
        if cover:
            picture = _add_video(output, "mjpeg", 25, 64, 48, 1, 0, "yuvj420p")
            picture.disposition = Disposition.attached_pic
        _write_tone(output, sound, seconds)
        if picture is not None:
            output.mux(picture.encode(_frame(1, 0, 64, 48, "yuvj420p", numbered_frame, None)))
            output.mux(picture.encode())
    return path


def make_many_streams(path: Path, count: int) -> Path:
    """A Matroska file of many sound tracks, with a block of sound in the first. Written by hand: FFmpeg refuses to."""
    tracks = b"".join(_sound_track(number) for number in range(1, count + 1))
    block = bytes([0x81, 0, 0, 0x80]) + bytes(160)  # track 1, time 0, key frame
    segment = _element("1549A966", _element("2AD7B1", (1_000_000).to_bytes(3, "big")))  # Info: ticks of a millisecond
    segment += _element("1654AE6B", tracks) + _element("1F43B675", _element("E7", b"\0") + _element("A3", block))
    path.write_bytes(_element("1A45DFA3", _element("4282", b"matroska")) + _element("18538067", segment))
    return path


def _sound_track(number: int) -> bytes:
    sound = _element("B5", np.array(8000.0, ">f8").tobytes()) + _element("9F", b"\1") + _element("6264", b"\x10")
    name = number.to_bytes(2, "big")
    entry = _element("D7", name) + _element("73C5", name) + _element("83", b"\2")
    return _element("AE", entry + _element("86", b"A_PCM/INT/LIT") + _element("E1", sound))


def _element(identity: str, payload: bytes) -> bytes:
    """An EBML element (RFC 8794), its length in eight bytes."""
    return bytes.fromhex(identity) + (len(payload) | 1 << 56).to_bytes(8, "big") + payload


def damage(path: Path, start: float, length_bytes: int, fill: bytes = b"\0") -> Path:
    """Overwrite bytes from the fraction `start` of the file on."""
    data = bytearray(path.read_bytes())
    first = int(len(data) * start)
    count = min(length_bytes, len(data) - first)
    data[first : first + count] = (fill * (count // len(fill) + 1))[:count]
    path.write_bytes(bytes(data))
    return path


def truncate(path: Path, keep: float) -> Path:
    """Keep the first fraction of a file, as an unfinished copy does. MP4 files need faststart to be readable then."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def rotate(path: Path, clockwise: int, *, mirror: bool = False) -> Path:
    """Write a display matrix into the first track of an MP4: the picture is to be turned by 0, 90, 180 or 270 degrees.

    `mirror`: left and right are exchanged before.
    """
    a, b, c, d = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[clockwise]
    if mirror:
        a, b = -a, -b
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # ISO/IEC 14496-12, 8.3.2, version 0
    data[place : place + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(bytes(data))
    return path


def concatenate(path: Path, *parts: Path) -> Path:
    """Join files byte by byte, which makes a valid stream of MPEG-TS."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def _add_video(
    output: Any, codec: str, fps: int, width: int, height: int, gop: int, b_frames: int, pix_fmt: str
) -> Any:
    stream = output.add_stream(codec, rate=fps)
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = width, height, pix_fmt
    context.time_base = Fraction(1, fps if codec in ("mpeg4", "mpeg2video", "mpeg1video", "msmpeg4v3") else _TICKS)
    context.gop_size, context.max_b_frames, context.thread_count = gop, b_frames, 1
    return stream


def _frame(
    number: int, second: float, width: int, height: int, pix_fmt: str, paint: Paint, colour: tuple[int, int] | None
) -> Any:
    rgb = av.VideoFrame.from_ndarray(paint(number, width, height), "rgb24")
    matrix, value_range = colour if colour is not None else (None, None)
    names = {1: "ITU709", 5: "ITU601", 6: "ITU601", 9: "BT2020", None: None}
    frame = rgb.reformat(format=pix_fmt, dst_colorspace=names[matrix], dst_color_range=value_range)
    frame.pts, frame.time_base = round(second * _TICKS), Fraction(1, _TICKS)
    return frame


def _add_audio(output: Any) -> Any:
    codec = {"webm": "libopus", "mp3": "libmp3lame", "wav": "pcm_s16le", "flac": "flac"}.get(output.format.name, "aac")
    return output.add_stream(codec, rate=48_000, layout="mono")


def _write_tone(output: Any, stream: Any, seconds: float) -> None:
    """A 440 Hz tone at half scale."""
    rate, block = 48_000, 960
    for start in range(0, round(seconds * rate), block):
        ticks = np.arange(start, start + block)
        wave = (np.sin(ticks * (2 * np.pi * 440 / rate)) * 16_384).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(wave[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        output.mux(stream.encode(frame))
    output.mux(stream.encode())


def _caption(stream: Any, start: float, end: float, words: str) -> Any:
    packet = av.Packet(words.encode())
    packet.pts = packet.dts = round(start * 1000)
    packet.duration, packet.time_base, packet.stream = round((end - start) * 1000), Fraction(1, 1000), stream
    return packet
