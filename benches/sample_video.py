"""Makes the sample video: `python -m benches.sample_video OUT.mp4 [--seconds 60] [--seed 0] [--no-captions]`.

Ten drawn scenes of six seconds, over and over, each with a sentence: as a caption, and as a voice-like sound in one of
two voices (benches/sample_voice.py; no words are in it). H.264, AAC and mov_text in MP4. Everything is made here, so it
may be given away.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import SubtitleSet
from av.video.stream import VideoStream

from benches.sample_scenes import HEIGHT, SCENE_SECONDS, SCENES, WIDTH, Scene
from benches.sample_voice import SAMPLE_RATE, VOICES, Samples, say, spoken_seconds

FPS = 12
LEAD_SECONDS = 0.6  # silence between the start of a scene and its sentence
CAPTION_SECONDS = (0.2, 0.3)  # how long a caption stands before the first and after the last sound, as is usual
ROOM_NOISE = 0.001  # -60 dB: a recording is never quite silent
CLOCK = Fraction(1, 1000)  # of captions

# The encoder of mov_text wants to know the styles that it shall write down; nobody looks at them here.
ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+
PlayResX: 640
PlayResY: 360

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Sans,22,&HFFFFFF,&HFFFFFF,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


@dataclass(frozen=True)
class Sentence:
    """What is said when: the truth about a sample video."""

    start_seconds: float
    end_seconds: float
    text: str
    voice: int  # index into VOICES

    @property
    def shown_seconds(self) -> tuple[float, float]:
        """From when to when its caption stands."""
        return self.start_seconds - CAPTION_SECONDS[0], self.end_seconds + CAPTION_SECONDS[1]


def scene_at(seconds: float, seed: int = 0) -> tuple[int, Scene]:
    """Which scene since the beginning, and the scene."""
    number = int(seconds // SCENE_SECONDS)
    return number, SCENES[(number + seed) % len(SCENES)]


def sentences(seconds: float, seed: int = 0) -> list[Sentence]:
    """Everything that is said in a sample video. A sentence that would not be finished is not begun."""
    said = []
    for number in range(int(np.ceil(seconds / SCENE_SECONDS))):
        start = number * SCENE_SECONDS + LEAD_SECONDS
        text = scene_at(number * SCENE_SECONDS, seed)[1].sentence
        end = round(start + spoken_seconds(text), 3)
        if end + CAPTION_SECONDS[1] <= seconds:
            said.append(Sentence(start, end, text, number % len(VOICES)))
    return said


def sound_track(seconds: float, seed: int = 0) -> Samples:
    """The whole sound: float32 [n], mono."""
    rng = np.random.default_rng(seed)
    sound = (ROOM_NOISE * rng.standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)
    for sentence in sentences(seconds, seed):
        voice = say(sentence.text, VOICES[sentence.voice], rng)
        start = round(sentence.start_seconds * SAMPLE_RATE)
        sound[start : start + len(voice)] += voice[: len(sound) - start]
    return sound


def make_sample(path: Path, seconds: float = 60, seed: int = 0, captions: bool = True) -> Path:
    """Write a sample video. Another seed begins with another scene and draws other stars, drops and leaves.

    Raises OSError (av.error.FFmpegError is one) when the file cannot be written.
    """
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as output:
        video = _video_stream(output)
        audio = output.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        waiting = sentences(seconds, seed) if captions else []
        cues = _caption_stream(output) if waiting else None
        output.start_encoding()
        sound = sound_track(seconds, seed)
        for number, frame in enumerate(_frames(seconds, seed)):
            while cues is not None and waiting and waiting[0].shown_seconds[0] <= (number + 1) / FPS:
                output.mux(_cue(cues, waiting.pop(0)))
            output.mux(video.encode(frame))
            output.mux(audio.encode(_piece(sound, number)))
        output.mux(video.encode())
        output.mux(audio.encode())
    return path


def _video_stream(output: OutputContainer) -> VideoStream:
    stream = output.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "threads": "1", "g": str(2 * FPS)})
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    return stream


def _caption_stream(output: OutputContainer) -> SubtitleStream:
    stream = output.add_stream("mov_text")
    stream.metadata["language"] = "eng"
    stream.time_base = stream.codec_context.time_base = CLOCK
    stream.codec_context.subtitle_header = ASS_HEADER
    return stream


def _frames(seconds: float, seed: int) -> Iterator[av.VideoFrame]:
    for number in range(round(seconds * FPS)):
        now = number / FPS
        count, scene = scene_at(now, seed)
        picture = scene.paint(now - count * SCENE_SECONDS, np.random.default_rng((seed, count)))
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        yield frame


def _piece(sound: Samples, number: int) -> av.AudioFrame:
    """The sound of one picture."""
    length = SAMPLE_RATE // FPS
    frame = av.AudioFrame.from_ndarray(sound[None, number * length : (number + 1) * length], "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, number * length, Fraction(1, SAMPLE_RATE)
    return frame


def _cue(stream: SubtitleStream, sentence: Sentence) -> av.Packet:
    start, end = (round(seconds / CLOCK) for seconds in sentence.shown_seconds)
    event = f"0,0,Default,,0,0,0,,{sentence.text}".encode()
    packet = stream.codec_context.encode_subtitle(SubtitleSet.create(event, 0, end - start, pts=start))
    packet.stream, packet.time_base = stream, CLOCK
    packet.pts = packet.dts = start
    packet.duration = end - start
    return packet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, metavar="OUT.mp4")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-captions", action="store_true")
    options = parser.parse_args()
    make_sample(options.path, options.seconds, options.seed, captions=not options.no_captions)


if __name__ == "__main__":
    main()
