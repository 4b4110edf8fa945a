"""Reads a sound track as a stream: decode, mix down to mono, resample to 16 kHz. Never a whole track in memory."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream as AvAudioStream
from av.container import InputContainer
from av.packet import Packet

from stages.checkpoints import AnchorTrail, SoundState, Tail, digest
from stages.errors import MediaError
from stages.media import open_media
from stages.mixdown import to_mono
from stages.options import DecodeOptions, SpeechOptions
from stages.resample import StreamingResampler, make_resampler
from stages.streams import codec_name, is_picture
from stages.timeline import SAMPLE_RATE, AudioChunk, Fault, GapMerger, Samples, SoundBlock, SoundTimeline
from transport.messages import Gap, MediaInfo

__all__ = ["SAMPLE_RATE", "AudioChunk", "Seam", "SoundTrack", "StreamingResampler", "open_sound", "read_audio"]

MAX_FAILED_READS = 100  # in a row, without a packet between them; then the rest counts as lost
RATES = range(2_000, 768_001)  # samples a second; what lies outside is not sound
# Bare streams, by the names of FFmpeg's demuxers: their length is guessed from the bit rate, and often wrong.
GUESSED_LENGTHS = {"aac", "ac3", "amr", "amrnb", "amrwb", "dts", "eac3", "loas", "mp3", "truehd"}

# Decoders whose output depends on little more than the packet in hand: after a seek they soon give what they would
# have given without. pcm_* as well.
FORGETFUL = {"alac", "flac", "vorbis"}
# These never forget: AAC and AC-3 fill up what was left out with noise from a generator that runs through the whole
# track, MPEG audio is dithered, Opus predicts from what went before. So every RENEWAL_SECONDS of the track a fresh
# decoder takes over, whose output depends on nothing but the packets from PRIMERS before that moment on.
RENEWED = {"aac", "ac3", "eac3", "mp1", "mp2", "mp3", "opus"}
RENEWAL_SECONDS = 30
PRIMERS = 32  # packets: 0.7 s of AAC, 80 ms of Opus in its shortest frames, which is what its RFC 7845 asks for
PREROLL_SECONDS = 10.0  # read before a renewal that is to be repeated: PRIMERS of the longest packets, 120 ms, are 4 s
# In these, FFmpeg seeks by reading on from the last place in the index, in one call that shows no sign of life.
SEEKS_BY_INDEX = ("matroska", "flv")
INDEX_STEP_SECONDS = 30.0  # the index may be so coarse


@dataclass(frozen=True, eq=False)
class Seam:
    """Between two decoded blocks, behind some chunk: here reading can be taken up again."""

    position: int  # sample of 16 kHz with which the next chunk begins
    # Where this is, so that all sound from a sample on can be had again; None: only by reading from the beginning. To
    # be called before the next item is asked for.
    capture: Callable[[int], SoundState | None]


def read_audio(
    path: bytes,
    media: MediaInfo,
    options: DecodeOptions,
    max_gap_seconds: float = SpeechOptions().max_audio_gap_seconds,
) -> Iterator[AudioChunk | Gap]:
    """The chosen sound track as chunks, and what is missing in it. Raises MediaError as `open_sound`."""
    with open_sound(path, media, options, max_gap_seconds) as sound:
        for item in sound.items():
            if not isinstance(item, Seam):
                yield item


@contextmanager
def open_sound(path: bytes, media: MediaInfo, options: DecodeOptions, max_gap_seconds: float) -> Iterator["SoundTrack"]:
    """The chosen sound track of a file. Raises MediaError when it cannot be opened or has no such track."""
    if media.audio is None:
        raise MediaError("no-audio", "the file has no sound track")
    with open_media(path, options) as container:
        yield SoundTrack(container, media, options, max_gap_seconds)


class SoundTrack:
    """A sound track that is read once, from the beginning or from where `resume` leads.

    Times are pts minus `media.start_seconds`. Holes and losses up to `max_gap_seconds` become silence, so that
    counting samples keeps the time; behind a longer one the next chunk begins later.
    """

    def __init__(
        self, container: InputContainer, media: MediaInfo, options: DecodeOptions, max_gap_seconds: float
    ) -> None:
        assert media.audio is not None
        self._container = container
        self._media = media
        self._stream = _stream(container, media.audio.index)
        self._decoder = SoundDecoder(self._stream)
        self._blocks = _blocks(container, self._decoder, media)
        begin_seconds = _begin_seconds(self._stream, media)
        self._end_seconds = _end_seconds(media, options, begin_seconds)
        self._timeline = SoundTimeline(make_resampler, begin_seconds, max_gap_seconds)
        self._gaps = GapMerger()
        self._trail = AnchorTrail()

    def items(self) -> Iterator[AudioChunk | Gap | Seam]:
        """Chunks, gaps and seams. Gaps are told as they become known, maybe after chunks that lie behind them."""
        for block in self._blocks:
            heard = False
            for item in self._place(block):
                heard = heard or isinstance(item, AudioChunk)
                yield from self._gaps.push(item)
            if heard:
                yield Seam(self._timeline.position, self._capture)
        for item in self._timeline.finish(self._end_seconds):
            yield from self._gaps.push(item)
        yield from self._gaps.finish()

    def resume(self, state: SoundState, samples: int, beat: Callable[[float], None]) -> Samples | None:
        """Go to a place without reading what lies far before it. Returns the last `samples` before it.

        None when the way to it gives another sound than then; then this track is of no more use. `beat` is told the
        time of each block on the way.
        """
        anchor = state.anchor
        if not self._go_before(anchor.start_seconds):
            return None
        for block in self._blocks:
            start_seconds = block.start_seconds if isinstance(block, SoundBlock) else None
            if start_seconds is not None and start_seconds >= anchor.start_seconds:
                break
            if start_seconds is not None:
                beat(start_seconds)
        else:
            return None
        if start_seconds != anchor.start_seconds or not self._decoder.repeatable:
            return None
        self._timeline.restore(anchor.timeline)
        tail = self._replay(chain((block,), self._blocks), state.blocks, Tail(samples), beat)
        same = self._timeline.state() == state.timeline and digest(self._timeline.held_back()) == state.digest
        self._gaps = GapMerger(state.held_gap)
        return tail.samples() if same else None

    def _replay(
        self, blocks: Iterator[SoundBlock | Fault], count: int, tail: Tail, beat: Callable[[float], None]
    ) -> Tail:
        while count > 0 and (block := next(blocks, None)) is not None:
            for item in self._place(block):
                if isinstance(item, AudioChunk):
                    tail.push(item)
            count -= isinstance(block, SoundBlock)
            beat(self._timeline.end_seconds)
        return tail

    def _place(self, block: SoundBlock | Fault) -> Iterator[AudioChunk | Gap]:
        if isinstance(block, Fault):
            self._timeline.fault(block)
        else:
            self._trail.pass_block(block.start_seconds, self._timeline)
            yield from self._timeline.place(block)

    def _capture(self, first: int) -> SoundState | None:
        if not self._decoder.repeatable or self._media.container in GUESSED_LENGTHS:  # so are their times after a seek
            return None
        return self._trail.capture(first, self._timeline, self._gaps.held)

    def _go_before(self, seconds: float) -> bool:
        """Seek to before the last renewal before a block, and some more; near the beginning of the track, stay."""
        seconds += self._media.start_seconds
        target_seconds = seconds // RENEWAL_SECONDS * RENEWAL_SECONDS - PREROLL_SECONDS
        if target_seconds <= _start_seconds(self._stream):
            return True
        self._decoder.repeatable = codec_name(self._stream) not in RENEWED
        return _seek(self._container, self._stream, target_seconds)


def _begin_seconds(stream: AvAudioStream, media: MediaInfo) -> float:
    """Where the track says that it begins."""
    return max(0.0, _start_seconds(stream) - media.start_seconds)


def _start_seconds(stream: AvAudioStream) -> float:
    """The first pts of the track; where it does not tell, that of the medium, which counts as 0."""
    return float(stream.start_time * stream.time_base) if stream.start_time is not None and stream.time_base else 0.0


def _end_seconds(media: MediaInfo, options: DecodeOptions, begin_seconds: float) -> float | None:
    """Where the track should end; None where that is not known, or not to be believed."""
    length = media.audio.duration_seconds if media.audio else None
    if length is None or length > options.max_hours * 3600 or media.container in GUESSED_LENGTHS:
        return None
    return begin_seconds + length


# --- decoding -------------------------------------------------------------------------------------------------------


def decoded_blocks(container: InputContainer, media: MediaInfo) -> Iterator[SoundBlock | Fault]:
    """The chosen sound track in mono and in its own sample rate, as it comes."""
    assert media.audio is not None
    return _blocks(container, SoundDecoder(_stream(container, media.audio.index)), media)


def _stream(container: InputContainer, index: int) -> AvAudioStream:
    stream = container.streams[index] if index < len(container.streams) else None
    if not isinstance(stream, AvAudioStream):
        raise MediaError(
            "file-changed", f"stream {index} is no longer a sound track: the file changed since it was probed"
        )
    return stream


def _seek(container: InputContainer, stream: AvAudioStream, seconds: float) -> bool:
    """Go to some place before `seconds`, as far as the container can tell where that is."""
    by_index = container.format.name.startswith(SEEKS_BY_INDEX)
    pictures = (other for other in container.streams.video if not is_picture(other))
    guide = next(pictures, stream) if by_index else stream
    assert guide.time_base is not None
    try:
        if by_index:
            container.seek(0, stream=guide)  # this reads the index
            entries = guide.index_entries
            if not len(entries) or entries[-1].timestamp * guide.time_base < seconds - INDEX_STEP_SECONDS:
                return False
        container.seek(int(seconds / guide.time_base), stream=guide)
    except av.error.FFmpegError:
        return False
    return True


class SoundDecoder:
    """The decoder of a track; where need be, one after the other. See RENEWED."""

    def __init__(self, stream: AvAudioStream) -> None:
        self.stream = stream
        name = codec_name(stream)
        self._context: AudioCodecContext = stream.codec_context
        self._renewed = name in RENEWED
        self._stated = True  # the stream's header describes all of it
        self._recent: deque[Packet[AvAudioStream]] = deque(maxlen=PRIMERS)
        self._period: int | None = None
        # Ticks of a period, as a fraction: a packet's time_base is made anew whenever it is asked for.
        self._period_ticks = RENEWAL_SECONDS / stream.time_base if stream.time_base else None
        # Whether what comes next would come after a seek, too.
        self.repeatable = self._renewed or name in FORGETFUL or name.startswith("pcm_")

    def decode(self, packet: "Packet[AvAudioStream]") -> list[AudioFrame]:
        """What a packet gives; an empty one, what was held back. Raises av.FFmpegError."""
        if packet.has_sidedata("new_extradata"):
            self._stated = self.repeatable = False
        if self._renewed and packet.size and packet.pts is not None and self._period_ticks is not None:
            period = packet.pts * self._period_ticks.denominator // self._period_ticks.numerator
            later = self._period is not None and period > self._period
            if self._stated and later and len(self._recent) == PRIMERS:  # fewer: reading has only just begun
                self._renew()
            self._period = period
            self._recent.append(packet)
        frames: list[AudioFrame] = self._context.decode(packet if packet.size else None)
        return frames

    def _renew(self) -> None:
        """Let a fresh decoder take over that has decoded the last packets; not if it cannot make anything of them."""
        fresh = AudioCodecContext.create(self._context.codec.name, "r")
        assert isinstance(fresh, AudioCodecContext)
        fresh.extradata = self.stream.codec_context.extradata
        frames: list[AudioFrame] = []
        for packet in self._recent:
            try:
                frames = fresh.decode(packet)
            except av.error.FFmpegError:
                frames = []
        self.repeatable = bool(frames)
        if frames:
            self._context = fresh


def _blocks(container: InputContainer, decoder: SoundDecoder, media: MediaInfo) -> Iterator[SoundBlock | Fault]:
    for frame in _frames(container, decoder):
        if isinstance(frame, Fault):
            yield frame
        elif frame.sample_rate not in RATES:
            yield Fault(f"a sample rate of {frame.sample_rate} Hz")
        else:
            start = None if frame.time is None else frame.time - media.start_seconds
            yield SoundBlock(start, frame.sample_rate, to_mono(frame))


def _frames(container: InputContainer, decoder: SoundDecoder) -> Iterator[AudioFrame | Fault]:
    """Decoded frames; packets that cannot be read or decoded are passed over."""
    for other in container.streams:  # only now: where to seek, FFmpeg tells by the pictures
        if other.index != decoder.stream.index:
            other.discard = av.stream.Discard.all
    failed = 0
    while failed <= MAX_FAILED_READS:
        try:
            for packet in container.demux(decoder.stream):
                failed = 0
                try:
                    yield from decoder.decode(packet)
                except av.error.FFmpegError as error:
                    yield Fault(f"a packet cannot be decoded ({error.strerror})")
            return
        except av.error.FFmpegError as error:
            failed += 1
            yield Fault(f"the file cannot be read here ({error.strerror})")
        except OSError as error:  # from the disk itself: to try again would only take long
            yield Fault(f"reading failed ({error.strerror})", code="read-error")
            return
