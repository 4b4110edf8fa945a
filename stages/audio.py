"""Reads a sound track as a stream: decode, mix down to mono, resample to 16 kHz. Never a whole track in memory."""

import math
from collections.abc import Iterator
from functools import lru_cache

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream as AvAudioStream
from av.container import InputContainer

from stages.errors import MediaError
from stages.media import open_media
from stages.options import DecodeOptions, SpeechOptions
from stages.resample import StreamingResampler, make_resampler
from stages.timeline import SAMPLE_RATE, AudioChunk, Fault, Samples, SoundBlock, SoundTimeline, merge_gaps
from transport.messages import Gap, MediaInfo

__all__ = ["SAMPLE_RATE", "AudioChunk", "StreamingResampler", "read_audio"]

PREROLL_SECONDS = 1.0  # decoded before the start that is asked for: codecs need a few frames to settle
MAX_FAILED_READS = 100  # in a row, without a packet between them; then the rest counts as lost
RATES = range(2_000, 768_001)  # samples a second; what lies outside is not sound
# ITU-R BS.775: mono is the mean of the stereo mix, which has centre and surrounds at -3 dB and no low effects.
CENTRE, SURROUND = math.sqrt(0.5), math.sqrt(0.5) / 2
WEIGHTS = {"FL": 0.5, "FR": 0.5, "FC": CENTRE, "LFE": 0.0, "LFE2": 0.0}
OFFSET_AND_SCALE = {
    "u1": (128.0, 2.0**7),
    "i2": (0.0, 2.0**15),
    "i4": (0.0, 2.0**31),
    "f4": (0.0, 1.0),
    "f8": (0.0, 1.0),
}
# Bare streams, by the names of FFmpeg's demuxers: their length is guessed from the bit rate, and often wrong.
GUESSED_LENGTHS = {"aac", "ac3", "amr", "amrnb", "amrwb", "dts", "eac3", "loas", "mp3", "truehd"}


def read_audio(
    path: bytes,
    media: MediaInfo,
    options: DecodeOptions,
    start_seconds: float = 0.0,
    max_gap_seconds: float = SpeechOptions().max_audio_gap_seconds,
) -> Iterator[AudioChunk | Gap]:
    """The chosen sound track from `start_seconds` on, and what is missing in it.

    Times are pts minus `media.start_seconds`. Holes and losses up to `max_gap_seconds` become silence, so that
    counting samples keeps the time; behind a longer one the next chunk begins later. Gaps are told as they become
    known, which can be after chunks that lie behind them. Raises MediaError when the file cannot be opened or has no
    such track.
    """
    if media.audio is None:
        raise MediaError("no-audio", "the file has no sound track")
    with open_media(path, options) as container:
        stream = _stream(container, media.audio.index)
        begin = _begin_seconds(stream, media)
        timeline = SoundTimeline(make_resampler, max(start_seconds, begin), max_gap_seconds)
        end = _end_seconds(media, options, begin)
        yield from merge_gaps(_placed(_blocks_from(container, stream, media, start_seconds), timeline, end))


def _placed(
    blocks: Iterator[SoundBlock | Fault], timeline: SoundTimeline, end_seconds: float | None
) -> Iterator[AudioChunk | Gap]:
    for block in blocks:
        if isinstance(block, Fault):
            timeline.fault(block)
        else:
            yield from timeline.place(block)
    yield from timeline.finish(end_seconds)


# --- decoding -------------------------------------------------------------------------------------------------------


def decoded_blocks(container: InputContainer, media: MediaInfo) -> Iterator[SoundBlock | Fault]:
    """The chosen sound track in mono and in its own sample rate, as it comes."""
    assert media.audio is not None
    return _blocks(container, _stream(container, media.audio.index), media)


def _stream(container: InputContainer, index: int) -> AvAudioStream:
    """The sound track; the demuxer is told to throw away everything else."""
    for other in container.streams:
        if other.index != index:
            other.discard = av.stream.Discard.all
    stream = container.streams[index] if index < len(container.streams) else None
    if not isinstance(stream, AvAudioStream):
        raise MediaError(
            "file-changed", f"stream {index} is no longer a sound track: the file changed since it was probed"
        )
    return stream


def _begin_seconds(stream: AvAudioStream, media: MediaInfo) -> float:
    """Where the track says that it begins."""
    if stream.start_time is None or stream.time_base is None:
        return 0.0
    return max(0.0, float(stream.start_time * stream.time_base) - media.start_seconds)


def _end_seconds(media: MediaInfo, options: DecodeOptions, begin_seconds: float) -> float | None:
    """Where the track should end; None where that is not known, or not to be believed."""
    length = media.audio.duration_seconds if media.audio else None
    if length is None or length > options.max_hours * 3600 or media.container in GUESSED_LENGTHS:
        return None
    return begin_seconds + length


def _blocks_from(
    container: InputContainer, stream: AvAudioStream, media: MediaInfo, start_seconds: float
) -> Iterator[SoundBlock | Fault]:
    """Blocks from `start_seconds` or a little earlier on. Where seeking overshoots, from the beginning."""
    if start_seconds > PREROLL_SECONDS and _seek(
        container, stream, media.start_seconds + start_seconds - PREROLL_SECONDS
    ):
        blocks = _blocks(container, stream, media)
        first = next(blocks, None)
        if isinstance(first, SoundBlock) and first.start_seconds is not None and first.start_seconds <= start_seconds:
            yield first
            yield from blocks
            return
        container.seek(0)
    yield from _blocks(container, stream, media)


def _seek(container: InputContainer, stream: AvAudioStream, seconds: float) -> bool:
    assert stream.time_base is not None
    try:
        container.seek(int(seconds / stream.time_base), stream=stream)
    except av.error.FFmpegError:
        return False
    return True


def _blocks(container: InputContainer, stream: AvAudioStream, media: MediaInfo) -> Iterator[SoundBlock | Fault]:
    for frame in _frames(container, stream):
        if isinstance(frame, Fault):
            yield frame
        elif frame.sample_rate not in RATES:
            yield Fault(f"a sample rate of {frame.sample_rate} Hz")
        else:
            start = None if frame.time is None else frame.time - media.start_seconds
            yield SoundBlock(start, frame.sample_rate, to_mono(frame))


def _frames(container: InputContainer, stream: AvAudioStream) -> Iterator[AudioFrame | Fault]:
    """Decoded frames; packets that cannot be read or decoded are passed over."""
    failed = 0
    while failed <= MAX_FAILED_READS:
        try:
            for packet in container.demux(stream):
                failed = 0
                try:
                    yield from packet.decode()
                except av.error.FFmpegError as error:
                    yield Fault(f"a packet cannot be decoded ({error.strerror})")
            return
        except av.error.FFmpegError as error:
            failed += 1
            yield Fault(f"the file cannot be read here ({error.strerror})")
        except OSError as error:  # from the disk itself: to try again would only take long
            yield Fault(f"reading failed ({error.strerror})", code="read-error")
            return


# --- channels -------------------------------------------------------------------------------------------------------


def to_mono(frame: AudioFrame) -> Samples:
    """One channel, float32 [n] within -1 to 1.

    Mono and stereo: the mean. Layouts with a centre: ITU-R BS.775, not scaled down, so that dialogue keeps its level
    and only effects that drive all channels at once are clipped. Layouts without known channels: the mean.
    """
    channels = len(frame.layout.channels)
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, channels).T
    offset, scale = OFFSET_AND_SCALE[array.dtype.str[1:]]
    weights = _weights(tuple(channel.name for channel in frame.layout.channels))
    mono: Samples = weights @ (array.astype(np.float32) - np.float32(offset))
    mono /= np.float32(scale)
    mono[~np.isfinite(mono)] = 0.0  # float codecs can hold NaN, which would stay in the voice detector for ever
    np.clip(mono, -1.0, 1.0, out=mono)
    return mono


@lru_cache(maxsize=64)
def _weights(names: tuple[str, ...]) -> Samples:
    """How much of each channel goes into mono, float32 [channels]."""
    if "FC" in names and len(names) > 1:
        return np.array([WEIGHTS.get(name, SURROUND) for name in names], np.float32)
    heard = np.array([not name.startswith("LFE") for name in names], np.float32)
    heard = heard if heard.any() else np.ones_like(heard)
    heard /= heard.sum()
    return heard
