"""Which sound tracks can be resumed without reading all before: `python -m benches.sound_resume MEDIUM...`.

Writes the sound of the first medium, over and over until there are `--minutes` of it, in many containers and codecs,
with and without pictures beside it; reads each whole, then from every checkpoint; and does the same with the media
themselves. Prints how many checkpoints there are, how many of them were reached by seeking, whether what followed was
always the same, bit for bit, and CPU seconds: of the whole track, and of a resume at its last checkpoint.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from stages.audio import AudioChunk, read_audio
from stages.errors import MediaError
from stages.media import probe
from stages.options import DecodeOptions, SpeechOptions
from stages.timeline import Samples
from stages.windows import SoundCheckpoint, SpeechReader, SpeechWindow, read_speech_windows
from transport.messages import AudioResume, MediaInfo

RATE = 48_000
FRAMES_EACH = 1024  # samples of a frame where the codec does not say
# File, codec of the sound, codec of the pictures, options of the container.
FORMATS: tuple[tuple[str, str, str | None, dict[str, str]], ...] = (
    ("aac.m4a", "aac", None, {}),
    ("aac.mp4", "aac", "libx264", {}),
    ("aac-fragmented.mp4", "aac", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
    ("aac.mkv", "aac", "libx264", {}),
    ("aac-live.mkv", "aac", "libx264", {"live": "1"}),
    ("aac.ts", "aac", "libx264", {}),
    ("aac.flv", "aac", "libx264", {}),
    ("aac.aac", "aac", None, {}),
    ("mp3.mp4", "libmp3lame", "libx264", {}),
    ("mp3.mkv", "libmp3lame", "libx264", {}),
    ("mp3.avi", "libmp3lame", "mpeg4", {}),
    ("mp3.mp3", "libmp3lame", None, {}),
    ("mp2.ts", "mp2", "mpeg2video", {}),
    ("mp2.mpg", "mp2", "mpeg2video", {}),
    ("ac3.ts", "ac3", "libx264", {}),
    ("ac3.mkv", "ac3", "libx264", {}),
    ("ac3.avi", "ac3", "mpeg4", {}),
    ("eac3.mp4", "eac3", "libx264", {}),
    ("opus.webm", "libopus", "libvpx", {}),
    ("opus.mkv", "libopus", "libx264", {}),
    ("opus.ogg", "libopus", None, {}),
    ("vorbis.webm", "vorbis", "libvpx", {}),
    ("vorbis.ogg", "vorbis", None, {}),
    ("flac.flac", "flac", None, {}),
    ("flac.mkv", "flac", "libx264", {}),
    ("alac.mov", "alac", "libx264", {}),
    ("pcm.wav", "pcm_s16le", None, {}),
    ("pcm.mov", "pcm_s16le", "libx264", {}),
    ("wma.wmv", "wmav2", "wmv2", {}),
)


def sound_of(path: Path, seconds: float) -> Samples:
    """The sound of a medium over and over, 16 kHz."""
    media = probe(os.fsencode(path), DecodeOptions())
    items = read_audio(os.fsencode(path), media, DecodeOptions())
    heard = np.concatenate([item.samples for item in items if isinstance(item, AudioChunk)])
    return np.resize(heard, round(seconds * 16_000))


def write(path: Path, sound: Samples, codec: str, pictures: str | None, options: dict[str, str]) -> None:
    """Encode sound, and grey pictures beside it, one a second."""
    with av.open(str(path), "w", options=options) as output:
        stream: Any = output.add_stream(codec, rate=RATE, layout="stereo", options={"strict": "experimental"})
        stream.bit_rate = 128_000
        video: Any = output.add_stream(pictures, rate=25) if pictures is not None else None
        if video is not None:
            video.width, video.height, video.pix_fmt, video.gop_size = 64, 48, "yuv420p", 5
        for second in range(len(sound) // 16_000):
            if video is not None:
                output.mux(video.encode(_picture(second)))
            for frame in _frames(stream, sound[second * 16_000 :][:16_000], second * RATE):
                output.mux(stream.encode(frame))
        for last in (stream, video):
            if last is not None:
                output.mux(last.encode(None))


def _picture(second: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), second % 255, np.uint8), "rgb24").reformat(format="yuv420p")
    frame.pts, frame.time_base = second * 25, Fraction(1, 25)
    return frame


def _frames(stream: Any, second: Samples, begin: int) -> Iterator[av.AudioFrame]:
    """A second of sound in pieces; the encoder's own frames are longer or shorter, PyAV's queue sees to that."""
    wave = np.rint(np.repeat(second, RATE // 16_000) * 32_767).astype(np.int16)
    for at in range(0, RATE, FRAMES_EACH):
        piece = np.stack([wave[at : at + FRAMES_EACH]] * 2)
        frame = av.AudioFrame.from_ndarray(piece.T.reshape(1, -1).copy(), "s16", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, begin + at, Fraction(1, RATE)
        yield frame


@dataclass
class Outcome:
    """What came of one track."""

    checkpoints: int = 0
    sought: int = 0  # reached without reading from the beginning
    equal: bool = True
    largest_bytes: int = 0
    whole_seconds: float = 0.0
    last_seconds: float = 0.0


def resume_everywhere(path: bytes, media: MediaInfo) -> Outcome:
    """Read a track whole, and from every checkpoint."""
    outcome = Outcome()
    begin = time.process_time()
    whole = _read(path, media, None)
    outcome.whole_seconds = time.process_time() - begin
    for number, item in enumerate(whole):
        if isinstance(item, SoundCheckpoint):
            outcome.checkpoints += 1
            outcome.largest_bytes = max(outcome.largest_bytes, len(item.state))
            begin = time.process_time()
            rest = _read(path, media, AudioResume(section=1, seconds=item.end_seconds, state=item.state))
            outcome.last_seconds = time.process_time() - begin
            outcome.sought += SOUGHT.pop()
            outcome.equal = outcome.equal and list(map(_compared, rest)) == list(map(_compared, whole[number + 1 :]))
    return outcome


SOUGHT: list[bool] = []


def _read(path: bytes, media: MediaInfo, resume: AudioResume | None) -> list[Any]:
    """All items; notes in SOUGHT whether the saved place was reached."""
    honest = SpeechReader.resume

    def noting(reader: SpeechReader, saved: Any) -> bool:
        SOUGHT[:] = [honest(reader, saved)]
        return SOUGHT[0]

    SOUGHT[:] = [False]
    SpeechReader.resume = noting  # type: ignore[method-assign,assignment]
    try:
        return list(read_speech_windows(path, media, DecodeOptions(), SpeechOptions(), resume))
    finally:
        SpeechReader.resume = honest  # type: ignore[method-assign]


def _compared(item: Any) -> Any:
    """What must be equal; states differ, for they name other anchors."""
    if isinstance(item, SpeechWindow):
        return item.start_seconds, item.end_seconds, item.speech, item.pcm.tobytes()
    return item.end_seconds if isinstance(item, SoundCheckpoint) else item


def report(name: str, path: Path) -> None:
    try:
        media = probe(os.fsencode(path), DecodeOptions())
    except MediaError as error:
        print(f"{name:44}{error}")
        return
    if media.audio is None:
        return
    outcome = resume_everywhere(os.fsencode(path), media)
    print(
        f"{name[:42]:44}{media.container.partition(',')[0]:10}{media.audio.codec:10}{outcome.checkpoints:12}"
        f"{outcome.sought:8}{'yes' if outcome.equal else 'NO':>7}{outcome.largest_bytes:9}"
        f"{outcome.whole_seconds:9.2f}{outcome.last_seconds:9.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("media", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, default=5.0)
    arguments = parser.parse_args()
    print(
        f"{'file':44}{'container':10}{'codec':10}{'checkpoints':>12}{'sought':>8}{'equal':>7}{'bytes':>9}"
        f"{'whole s':>9}{'last s':>9}"
    )
    sound = sound_of(arguments.media[0], arguments.minutes * 60)
    with tempfile.TemporaryDirectory() as directory:
        for name, codec, pictures, options in FORMATS:
            path = Path(directory) / name
            write(path, sound, codec, pictures, options)
            report(name, path)
    for path in arguments.media:
        report(path.name, path)


if __name__ == "__main__":
    main()
