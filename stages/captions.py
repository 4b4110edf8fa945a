"""Captions in place of transcription: choosing a track, and reading its cues.

Embedded tracks and files beside the medium are read by FFmpeg alike; it decodes every format to ASS, which is stripped
here.
"""

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle

from stages.errors import MediaError
from stages.languages import same_language
from stages.limits import CAPTION_CODECS, decoder_names
from stages.media import open_media
from stages.options import DecodeOptions, SpeechOptions
from stages.sidecar import encoding_of, find_sidecars, read_text
from transport.messages import CaptionTrack, Gap, MediaInfo

__all__ = ["CaptionCue", "choose_track", "find_sidecars", "read_captions"]

DEMUXERS = {"subrip": "srt", "webvtt": "webvtt", "ass": "ass", "ssa": "ass"}  # of caption files
MAX_CUE_CHARACTERS = 4_000  # five minutes of fast speech: more is not a cue
MAX_CUE_SECONDS = 300.0  # a name that is shown throughout a film is none either: what is said meanwhile is not in it
GUESS_CUES = 100  # of an embedded track: those from which a wrong encoding is guessed, and read before any is given
END_TOLERANCE_SECONDS = 1.0  # durations are rounded, and the last cue is often a little late

_DRAWING = re.compile(r"\{[^}]*\\p[1-9][^}]*\}.*?(\{[^}]*\\p0[^}]*\}|$)", re.DOTALL)  # ASS vector graphics
_OVERRIDES = re.compile(r"\{\\[^}]*\}")  # ASS override codes
_COMMENTS = re.compile(r"\{[^}]*\}")  # what ASS does not know as a code it does not show
_TAGS = re.compile(r"</?[A-Za-z][^<>]*>")  # of HTML, which FFmpeg leaves where it does not know it
_BREAKS = re.compile(r"\\[Nnh]|\s")
_NEWLINES = re.compile(r"\r?\r\n|\r")
_ARROW = re.compile(r"^([ \t]*)([\d:.,]+)([ \t]*-->[ \t]*)([\d:.,]+)", re.MULTILINE)
_DIALOGUE = re.compile(r"^(Dialogue:[^,\n]*,[ \t]*)([\d:.]+)([ \t]*,[ \t]*)([\d:.]+)", re.MULTILINE)
_TIMING = {"subrip": _ARROW, "webvtt": _ARROW, "ass": _DIALOGUE, "ssa": _DIALOGUE}  # start and end: groups 2 and 4


@dataclass(frozen=True)
class CaptionCue:
    """What is said in a stretch of the medium."""

    start_seconds: float
    end_seconds: float
    text: str  # one line, no markup
    language: str | None


def choose_track(tracks: tuple[CaptionTrack, ...], options: SpeechOptions) -> CaptionTrack | None:
    """The track to read: in the language asked for, if there is one; a file beside the medium before one inside."""
    readable = [track for track in tracks if track.format in CAPTION_CODECS]
    wanted = [track for track in readable if same_language(track.language, options.caption_language)]
    return min(wanted or readable, key=lambda track: track.sidecar is None, default=None)


def read_captions(
    path: bytes, track: CaptionTrack, media: MediaInfo, options: DecodeOptions
) -> Iterator[CaptionCue | Gap]:
    """The cues of a track in order of their start, and what had to be left out.

    Times of embedded tracks are pts minus `media.start_seconds`; those of files count from the player's zero. Cues
    without text are not cues. Cues without duration, that end before they begin, that are too long, that lie outside
    the medium, or that cannot be decoded are gaps. Overlapping and repeated cues are kept as they are. Raises
    MediaError when the medium or the caption file cannot be read.
    """
    found = 0
    offset = media.start_seconds if track.sidecar is None else 0.0
    end = _end_seconds(media)
    with _open(path, track, options) as (container, stream):
        for packet in _in_utf8(_packets(container, stream, end)):
            item = packet if isinstance(packet, Gap) else _item(packet, offset, track.language, end)
            found += isinstance(item, CaptionCue)
            if item is not None:
                yield item
    if not found:
        reason = "captions-empty: the caption track has no usable cue"
        yield Gap(start_seconds=0.0, end_seconds=media.duration_seconds or 0.0, reason=reason)


def _end_seconds(media: MediaInfo) -> float | None:
    """Where the medium ends. Matroska's length counts from 0, wherever the medium begins: before 0 it is too short."""
    return None if media.duration_seconds is None else media.duration_seconds + max(0.0, -media.start_seconds)


# --- opening --------------------------------------------------------------------------------------------------------


@contextmanager
def _open(path: bytes, track: CaptionTrack, options: DecodeOptions) -> Iterator[tuple[InputContainer, SubtitleStream]]:
    if track.sidecar is None:
        with open_media(path, options) as container:
            yield container, _stream(container, track.stream_index)
    else:
        with _open_text(read_text(track.sidecar), track.format) as container:
            yield container, _stream(container, 0)


def _open_text(text: str, format_name: str) -> InputContainer:
    """Let FFmpeg parse the text of a caption file."""
    av.logging.set_level(None)  # FFmpeg's log callback can deadlock with the GIL: PyAV issues 751 and 909
    demuxer = DEMUXERS[format_name]
    lines = _NEWLINES.sub("\n", text)  # FFmpeg finds no line in ASS that ends as on old Macs
    source = io.BytesIO(_TIMING[format_name].sub(_without_backward_times, lines).encode())
    settings = {"format_whitelist": demuxer, "codec_whitelist": decoder_names(), "protocol_whitelist": "file"}
    try:
        container: InputContainer = av.open(source, "r", format=demuxer, options=settings)
    except av.error.FFmpegError as error:
        raise MediaError("captions-unreadable", f"the caption file is not {demuxer} ({error.strerror})") from error
    return container


def _without_backward_times(match: re.Match[str]) -> str:
    """FFmpeg lets a cue that ends before it begins last until the next one. Without duration it shows as wrong."""
    indent, start, arrow, end = match.groups()
    return f"{indent}{start}{arrow}{start if _clock_seconds(end) < _clock_seconds(start) else end}"


def _clock_seconds(clock: str) -> float:
    """Seconds of [hours:]minutes:seconds[.,]fraction; damaged numbers are left to FFmpeg."""
    try:
        parts = [float(part) for part in clock.replace(",", ".").split(":")]
    except ValueError:
        return 0.0
    return sum(part * 60.0**power for power, part in enumerate(reversed(parts)))


def _stream(container: InputContainer, index: int | None) -> SubtitleStream:
    """The caption track; the demuxer is told to throw away everything else."""
    for other in container.streams:
        if other.index != index:
            other.discard = av.stream.Discard.all
    stream = container.streams[index] if index is not None and index < len(container.streams) else None
    if not isinstance(stream, SubtitleStream):
        raise MediaError(
            "file-changed", f"stream {index} is no longer a caption track: the file changed since it was probed"
        )
    return stream


# --- cues -----------------------------------------------------------------------------------------------------------


def _packets(
    container: InputContainer, stream: SubtitleStream, duration_seconds: float | None
) -> Iterator["Packet[SubtitleStream] | Gap"]:
    """Packets that hold something, up to the end or to where reading fails."""
    at = 0.0
    try:
        for packet in container.demux(stream):
            if packet.size:
                at = at if packet.pts is None else max(at, float(packet.pts * packet.time_base))
                yield packet
    except (av.error.FFmpegError, OSError) as error:
        reason = f"captions-unreadable: the track cannot be read from here on ({error.strerror})"
        yield Gap(start_seconds=at, end_seconds=max(at, duration_seconds or at), reason=reason)


def _in_utf8(packets: Iterator["Packet[SubtitleStream] | Gap"]) -> Iterator["Packet[SubtitleStream] | Gap"]:
    """The same packets in UTF-8, which is all that FFmpeg decodes, whatever encoding they came in.

    The encoding is guessed from the text of many cues, for a single one is too short. Where there is UTF-8, or nothing
    likely, the others count as damaged: they are left as they are, and will be gaps.
    """
    encoding: str | None = None
    is_utf8 = False
    held: list[Packet[SubtitleStream] | Gap] = []
    for packet in packets:
        held.append(packet)
        is_utf8 = is_utf8 or _kind(packet) == "utf-8"
        if encoding is None and not is_utf8:
            if any(_kind(other) == "foreign" for other in held) and len(held) < GUESS_CUES:
                continue
            encoding = _guess(held)
        yield from (_recoded(packet, encoding) for packet in held)
        held = []
    encoding = encoding or _guess(held)
    yield from (_recoded(packet, encoding) for packet in held)


def _kind(packet: "Packet[SubtitleStream] | Gap") -> Literal["ascii", "utf-8", "utf-16", "foreign"]:
    """How its text is encoded, as far as one packet can tell. UTF-16 has a mark (3GPP TS 26.245)."""
    text = b"" if isinstance(packet, Gap) else _payload(packet)
    if text.isascii():
        return "ascii"
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        text.decode()
    except UnicodeDecodeError:
        return "foreign"
    return "utf-8"


def _payload(packet: "Packet[SubtitleStream]") -> bytes:
    """The text of a packet with its markup. In MP4 its length stands before it, and styles behind."""
    data = bytes(packet)
    return data[2 : 2 + int.from_bytes(data[:2], "big")] if _is_mov_text(packet) else data


def _is_mov_text(packet: "Packet[SubtitleStream]") -> bool:
    return packet.stream.codec_context.name == "mov_text"


def _guess(packets: list["Packet[SubtitleStream] | Gap"]) -> str | None:
    """The encoding of those whose own is not known; None when there are none, or nothing is likely."""
    texts = [_payload(each) for each in packets if not isinstance(each, Gap) and _kind(each) == "foreign"]
    try:
        return encoding_of(b"\n".join(texts)) if texts else None
    except MediaError:
        return None


def _recoded(packet: "Packet[SubtitleStream] | Gap", encoding: str | None) -> "Packet[SubtitleStream] | Gap":
    """The packet in UTF-8; as it is when it has that already, or when nobody knows what it has."""
    kind = _kind(packet)
    name = encoding if kind == "foreign" else kind
    if isinstance(packet, Gap) or name in (None, "ascii", "utf-8"):
        return packet
    data = _payload(packet).decode(name, errors="replace").encode()
    if _is_mov_text(packet):
        data = data[:0xFFFF]  # more is no cue anyway
        data = len(data).to_bytes(2, "big") + data
    new = cast("Packet[SubtitleStream]", Packet(data))
    new.stream, new.time_base = packet.stream, packet.time_base
    new.pts, new.dts, new.duration = packet.pts, packet.dts, packet.duration
    return new


def _item(
    packet: "Packet[SubtitleStream]", offset_seconds: float, language: str | None, duration_seconds: float | None
) -> CaptionCue | Gap | None:
    """The cue of a packet, or why it is none; None when it holds no text."""
    ticks, length = packet.pts or 0, packet.duration or 0
    start = round(float(ticks * packet.time_base) - offset_seconds, 6)
    end = round(start + float(length * packet.time_base), 6)
    try:
        text = _text(packet)
        wrong = (
            _fault(start, end, text, duration_seconds)
            if packet.pts is not None
            else "captions-time: a cue without time"
        )
    except av.error.FFmpegError as error:
        text, wrong = "?", f"captions-undecodable: a cue cannot be decoded ({error.strerror})"
    if not text:
        return None
    if wrong is not None:
        end = end if duration_seconds is None else min(end, duration_seconds)
        return Gap(start_seconds=start, end_seconds=max(start, end), reason=wrong)
    return CaptionCue(max(0.0, start), end, text, language)


def _fault(start: float, end: float, text: str, duration_seconds: float | None) -> str | None:
    """What is wrong with a cue."""
    if end <= start:
        return "captions-time: a cue has no duration, or ends before it begins"
    if end <= 0 or (duration_seconds is not None and start > duration_seconds + END_TOLERANCE_SECONDS):
        return "captions-outside: a cue lies outside the medium"
    if end - start > MAX_CUE_SECONDS:
        return f"captions-too-long: a cue of {end - start:.0f} seconds"
    if len(text) > MAX_CUE_CHARACTERS:
        return f"captions-too-long: a cue of {len(text)} characters"
    return None


def _text(packet: "Packet[SubtitleStream]") -> str:
    """Text of a packet: one line without markup."""
    codec = packet.stream.codec_context
    subtitles = codec.decode2(packet)
    events = [rect.ass.decode(errors="replace") for rect in subtitles or () if isinstance(rect, AssSubtitle)]
    texts = [plain_text(event.split(",", 8)[-1], codec.name) for event in events]  # the text is the ninth field
    return " ".join(text for text in texts if text)


def plain_text(ass: str, codec: str) -> str:
    """Strip the text of an ASS event: override codes, drawings, comments in braces, HTML tags and entities."""
    text = _OVERRIDES.sub("", _DRAWING.sub("", ass))
    text = (_COMMENTS if codec in ("ass", "ssa") else _TAGS).sub("", text)
    if codec != "webvtt":  # whose decoder has done that
        text = html.unescape(text)
    return " ".join(_BREAKS.sub(" ", text).split())
