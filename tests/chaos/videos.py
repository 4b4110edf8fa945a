"""Videos to be indexed while processes are killed: small pictures, voices, several containers; and ever new ones.

Every file is decided by its name alone, so that an undisturbed run over the same directory is the reference.
"""

import shutil
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benches.sample_video import sound_track
from benches.sample_voice import SAMPLE_RATE, Samples
from tests.media_factory import numbered_frame

SHARED = Path(__file__).parents[3] / "shared" / "media"
WIDTH, HEIGHT, FPS = 64, 48, 10
BLOCK = 4800  # samples of sound in one frame: 0.2 s
VOID = 0xEC  # Matroska's element that is to be passed over (RFC 8794, 11.3.2)

SHORT = (("talk.mp4", 12.0), ("silent.webm", 8.0), ("stream.ts", 9.0))
LONG = (*SHORT, ("film.mkv", 200.0))  # its sound track has three checkpoints, a minute apart


def make_talk(path: Path, seconds: float, seed: int = 0) -> Path:
    """A video with numbered frames, and voices but in WebM; a frame carries at most 12 bits of its number."""
    codec, silent = ("libvpx-vp9", True) if path.suffix == ".webm" else ("libx264", False)
    with av.open(str(path), "w") as output:
        picture = output.add_stream(codec, rate=FPS, options={"preset": "veryfast"} if codec == "libx264" else {})
        picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        picture.codec_context.gop_size, picture.codec_context.thread_count = 2 * FPS, 1
        sound = None if silent else output.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        voices = sound_track(seconds, seed)
        per_frame = SAMPLE_RATE // FPS
        for number in range(round(seconds * FPS)):
            frame = av.VideoFrame.from_ndarray(numbered_frame((number + 97 * seed) % 4096, WIDTH, HEIGHT), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            output.mux(picture.encode(frame))
            if sound is not None:
                output.mux(sound.encode(_block(voices, number * per_frame, per_frame)))
        output.mux(picture.encode())
        if sound is not None:
            output.mux(sound.encode())
    return path


def _block(voices: Samples, start: int, length: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(voices[None, start : start + length]), "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
    return frame


def marked(data: bytes, suffix: str, mark: int) -> bytes:
    """The same video as other content: something that every reader passes over is put behind it.

    Raises:
        ValueError: there is no such thing in this container.
    """
    word = struct.pack(">Q", mark)
    match suffix.lower():
        case ".mp4" | ".mov" | ".m4a":
            return data + struct.pack(">I4s", 16, b"free") + word  # ISO/IEC 14496-12, 8.1.2
        case ".mkv" | ".webm":
            return data + bytes([VOID, 0x80 | len(word)]) + word
        case ".ts":
            return data + bytes([0x47, 0x1F, 0xFF, 0x10]) + word + bytes(188 - 4 - len(word))  # a null packet
    raise ValueError(f"nothing can be put behind a file that ends in {suffix!r}")


def can_be_marked(path: Path) -> bool:
    """Whether `marked` knows the container."""
    return path.suffix.lower() in (".mp4", ".mov", ".m4a", ".mkv", ".webm", ".ts")


class Workload:
    """A directory that gets more and more to do: copies of its sources, each with content of its own."""

    def __init__(self, directory: Path, sources: list[Path]) -> None:
        self.directory = directory
        self._sources = [path for path in sources if can_be_marked(path)]
        self.waves = 0
        directory.mkdir(parents=True, exist_ok=True)

    def add_wave(self, count: int | None = None) -> list[Path]:
        """One new copy of each source, or of the first `count`."""
        self.waves += 1
        return [self._copy(source) for source in self._sources[:count]]

    def add_slowly(self, write: Callable[[Path, bytes], object]) -> None:
        """One new copy of the first source, which `write` writes in place: it can be seen before it is whole."""
        self.waves += 1
        write(*self._content(self._sources[0]))

    def _copy(self, source: Path) -> Path:
        path, data = self._content(source)
        hidden = self.directory / f".{path.name}.part"  # it appears whole
        hidden.write_bytes(data)
        return hidden.rename(path)

    def _content(self, source: Path) -> tuple[Path, bytes]:
        data = marked(source.read_bytes(), source.suffix, self.waves)
        return self.directory / f"{self.waves:04}-{source.name}", data


def sources_in(directory: Path, made: tuple[tuple[str, float], ...], real: bool = False) -> list[Path]:
    """Make the videos, and take those of the shared directory along when `real` and there are any."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [make_talk(directory / name, seconds, seed) for seed, (name, seconds) in enumerate(made)]
    if real and SHARED.is_dir():
        files = sorted(path for path in SHARED.iterdir() if path.is_file() and can_be_marked(path))
        paths += [Path(shutil.copy2(path, directory / path.name)) for path in files if path.stat().st_size]
    return paths
