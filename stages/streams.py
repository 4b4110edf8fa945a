"""Which of a file's streams are indexed, and what is told about them."""

import re
from typing import Literal

import av
import av.container
from av.stream import Disposition

from stages.limits import AUDIO_CODECS, CAPTION_CODECS, VIDEO_CODECS
from transport.messages import AudioStream, CaptionTrack, VideoStream

_NOT_A_FILM = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_MAX_FPS = 1000.0  # a higher average is a broken header
_MAX_PIXEL_ASPECT = 16.0  # beyond 16:1 it is a broken header; the widest known, anamorphic DV, has 1.46
_DURATION_TAG = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
_ALLOWED = {"video": VIDEO_CODECS, "audio": AUDIO_CODECS}


def is_picture(stream: "av.stream.Stream") -> bool:
    """Cover art and thumbnails are video streams to FFmpeg, not to us."""
    return stream.type == "video" and bool(stream.disposition & _NOT_A_FILM)


def codec_name(stream: "av.stream.Stream") -> str:
    """Name of the codec as ffprobe prints it; decoders have others (libdav1d decodes av1)."""
    return "unknown" if stream.codec_context is None else str(stream.codec_context.codec.canonical_name)


def readable(stream: "av.stream.Stream") -> bool:
    """True for a video or audio stream whose codec is allowed and can be decoded."""
    return stream.codec_context is not None and codec_name(stream) in _ALLOWED.get(stream.type, ())


def choose(
    container: "av.container.InputContainer", kind: Literal["video", "audio"]
) -> tuple["av.stream.Stream | None", tuple[str, ...]]:
    """The stream of a kind that a player would play, and notes about those that were left out.

    FFmpeg's own choice (av_find_best_stream: default disposition, then frames and bit rate) when it is one that we
    read; otherwise the first default one, otherwise the first.
    """
    present = [stream for stream in container.streams if stream.type == kind and not is_picture(stream)]
    usable = [stream for stream in present if readable(stream)]
    refused = tuple(
        f"{kind} stream {stream.index} is not indexed: codec {codec_name(stream)} is not allowed"
        for stream in present
        if not readable(stream)
    )
    if not usable:
        return None, refused
    best = container.streams.best(kind)
    defaults = [stream for stream in usable if stream.disposition & Disposition.default]
    chosen = best if best in usable else (defaults or usable)[0]
    return chosen, refused + _why(chosen, usable, defaults, kind)


def _why(
    chosen: "av.stream.Stream", usable: list["av.stream.Stream"], defaults: list["av.stream.Stream"], kind: str
) -> tuple[str, ...]:
    if len(usable) == 1:
        return ()
    reason = "it is the default one" if defaults == [chosen] else "it is the best of them by its header"
    return (f"{len(usable)} {kind} streams: stream {chosen.index} ({_describe(chosen)}) is indexed, {reason}",)


def _describe(stream: "av.stream.Stream") -> str:
    if stream.type == "video":
        return f"{codec_name(stream)}, {stream.codec_context.width}x{stream.codec_context.height}"
    words = [codec_name(stream), f"{stream.codec_context.sample_rate} Hz", _language(stream)]
    return ", ".join(word for word in words if word)


def video_info(stream: "av.stream.Stream", container_format: str) -> VideoStream:
    """What is told about the video stream."""
    aspect = float(stream.sample_aspect_ratio or 1)
    fps = float(stream.average_rate or 0)
    return VideoStream(
        index=stream.index,
        codec=codec_name(stream),
        width=stream.codec_context.width,
        height=stream.codec_context.height,
        sample_aspect_ratio=aspect if 1 / _MAX_PIXEL_ASPECT <= aspect <= _MAX_PIXEL_ASPECT else 1.0,
        average_fps=fps if 0 < fps <= _MAX_FPS else None,
        duration_seconds=_duration_seconds(stream, container_format),
    )


def audio_info(stream: "av.stream.Stream", container_format: str) -> AudioStream:
    """What is told about the audio stream."""
    return AudioStream(
        index=stream.index,
        codec=codec_name(stream),
        sample_rate=stream.codec_context.sample_rate,
        channels=stream.codec_context.channels,
        language=_language(stream),
        duration_seconds=_duration_seconds(stream, container_format),
    )


def caption_tracks(container: "av.container.InputContainer") -> tuple[CaptionTrack, ...]:
    """Subtitle streams that hold text: the default ones first, otherwise in the order of the file.

    Forced ones are left out: they hold only the lines in a foreign language.
    """
    streams = [
        stream
        for stream in container.streams
        if stream.type == "subtitle"
        and codec_name(stream) in CAPTION_CODECS
        and not stream.disposition & Disposition.forced
    ]
    streams.sort(key=lambda stream: not stream.disposition & Disposition.default)
    return tuple(
        CaptionTrack(format=codec_name(stream), language=_language(stream), stream_index=stream.index)
        for stream in streams
    )


def _language(stream: "av.stream.Stream") -> str | None:
    language = stream.metadata.get("language")
    return None if language in (None, "", "und") else str(language)


def _duration_seconds(stream: "av.stream.Stream", container_format: str) -> float | None:
    """Length of one stream. Matroska has no field for it; its usual writers put one, counted from 0, into a tag."""
    if stream.duration is not None and stream.duration > 0:
        return float(stream.duration * stream.time_base)
    tag = _DURATION_TAG.match(stream.metadata.get("DURATION", ""))
    if tag is None or not container_format.startswith("matroska"):
        return None
    end_seconds = int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    seconds = end_seconds - float((stream.start_time or 0) * stream.time_base)
    return seconds if seconds > 0 else None
