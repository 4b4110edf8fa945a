"""Opening a file of unknown origin, hashing it, and telling what is in it.

Safety of every open (docs/formats.md): FFmpeg never sees the file's name and opens no other file, for it reads through
a file object of ours and any further open is refused; demuxers and decoders are allow-listed; streams and pixels are
limited.
"""

import contextlib
import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

import av
import av.container
import av.logging
import msgspec

from stages.errors import MediaError
from stages.key_index import key_seconds
from stages.limits import AUDIO_CODECS, CAPTION_CODECS, FORMATS, VIDEO_CODECS, decoder_names
from stages.options import DecodeOptions
from stages.sniff import sniff
from stages.spans import nominal_edges
from stages.streams import audio_info, caption_tracks, choose, codec_name, is_picture, readable, video_info
from transport.messages import CaptionTrack, MediaInfo

__all__ = ["AUDIO_CODECS", "CAPTION_CODECS", "VIDEO_CODECS", "Content", "content_of", "open_media", "probe"]

HASH_CHUNK_BYTES = 1 << 20
IO_BUFFER_BYTES = 1 << 16  # a call into Python for each: 32 KiB, PyAV's default, doubles them
SNIFF_BYTES = 600  # three packets of a transport stream
MICROSECONDS = 1_000_000  # av.time_base


class Content(NamedTuple):
    """What a file held when it was hashed, and the marks by which a later change shows."""

    sha256: str  # in hex: the identity of the content
    size_bytes: int  # these two from before the first byte was read
    mtime_ns: int


def content_of(path: bytes, progress: Callable[[], None] | None = None) -> Content:
    """Hash a file. `progress` is called after every MiB.

    Raises:
        MediaError: not-found, not-a-file, no-permission, empty-file, read-error.
    """
    digest = hashlib.sha256()
    with _open_file(path) as file:
        before = os.fstat(file.fileno())
        try:
            while chunk := file.read(HASH_CHUNK_BYTES):
                digest.update(chunk)
                if progress is not None:
                    progress()
        except OSError as error:
            raise MediaError("read-error", f"reading failed: {error.strerror}") from error
    return Content(digest.hexdigest(), before.st_size, before.st_mtime_ns)


@contextlib.contextmanager
def open_media(path: bytes, options: DecodeOptions) -> Iterator["av.container.InputContainer"]:
    """Open a local file for demuxing and decoding, within the limits of `options`.

    Raises:
        MediaError: not-found, not-a-file, no-permission, empty-file, not-media, broken-header, too-many-streams,
            too-many-pixels, codec-not-allowed, no-streams, read-error.
    """
    av.logging.set_level(None)  # FFmpeg's log callback can deadlock with the GIL: PyAV issues 751 and 909
    with _open_file(path) as file:
        container = _open_container(file, options)
        with container:
            _check(container, options)
            yield container


def probe(path: bytes, options: DecodeOptions, captions: tuple[CaptionTrack, ...] = ()) -> MediaInfo:
    """Tell what a file holds, which streams are indexed, and why those. `captions`: found beside it, listed first.

    Raises:
        MediaError: as open_media.
    """
    with open_media(path, options) as container:
        video, video_notes = choose(container, "video")
        audio, audio_notes = choose(container, "audio")
        start_seconds = (container.start_time or 0) / MICROSECONDS
        duration_seconds, duration_notes = _duration(container, options)
        picture = None if video is None else video_info(video, container.format.name)
        if picture is not None and options.sampling == "fps":
            edges = nominal_edges(picture.duration_seconds or duration_seconds, options)
            keys = key_seconds(container, video, edges[1:], start_seconds)
            picture = msgspec.structs.replace(picture, key_seconds=keys)
        sound = None if audio is None else audio_info(audio, container.format.name)
        return MediaInfo(
            container=container.format.name,
            duration_seconds=duration_seconds,
            start_seconds=start_seconds,
            video=picture,
            audio=sound,
            captions=captions + caption_tracks(container),
            notes=(*video_notes, *audio_notes, *duration_notes),
        )


def _open_file(path: bytes) -> io.FileIO:
    """A regular, non-empty file; O_NONBLOCK so that a pipe of that name does not stop us for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise MediaError("not-found", "there is no such file") from error
    except PermissionError as error:
        raise MediaError("no-permission", "no permission to read the file") from error
    except OSError as error:
        raise MediaError("read-error", f"cannot be opened: {error.strerror}") from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size > 0:
        return io.FileIO(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISREG(status.st_mode):
        raise MediaError("empty-file", "the file is empty (0 bytes)")
    raise MediaError("not-a-file", "not a regular file")


class _Source:
    """What FFmpeg reads from. Its name has neither path nor extension, so that the content alone tells the format."""

    name = "media"

    def __init__(self, file: io.FileIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError(errno.EPERM, "a medium may not open further files")


def _open_container(file: io.FileIO, options: DecodeOptions) -> "av.container.InputContainer":
    settings = {
        "format_whitelist": ",".join(sorted(FORMATS)),
        "codec_whitelist": decoder_names(),
        "protocol_whitelist": "file",
        "max_streams": str(options.max_streams + 1),  # one more, so that _check can say that there are too many
        "max_pixels": str(options.max_pixels),
    }
    try:
        return av.open(
            _Source(file),
            "r",
            options=settings,
            metadata_errors="replace",
            buffer_size=IO_BUFFER_BYTES,
            io_open=_refuse,
        )
    except (av.FFmpegError, OSError) as error:  # OSError: from file.read
        raise _open_error(error, file, options) from error


def _open_error(error: "av.FFmpegError | OSError", file: io.FileIO, options: DecodeOptions) -> MediaError:
    if error.errno == errno.ENOMEM:  # FFmpeg's answer to one stream more than its max_streams
        return MediaError(
            "too-many-streams",
            f"more than {options.max_streams} streams (decode.max_streams), or no memory left to open them",
        )
    if not isinstance(error, av.FFmpegError):
        return MediaError("read-error", f"reading failed: {error.strerror}")
    file.seek(0)
    kind = sniff(file.read(SNIFF_BYTES))
    if kind.container:
        return MediaError("broken-header", f"{kind.name} with a missing or broken header (an unfinished copy?)")
    return MediaError("not-media", f"not a video or sound file that is allowed: it is {kind.name} (docs/formats.md)")


def _check(container: "av.container.InputContainer", options: DecodeOptions) -> None:
    streams = list(container.streams)
    if len(streams) > options.max_streams:
        raise MediaError("too-many-streams", f"more than {options.max_streams} streams (decode.max_streams)")
    media = [stream for stream in streams if stream.type in ("video", "audio") and not is_picture(stream)]
    if not media:
        raise MediaError("no-streams", "neither a video nor an audio stream")
    for stream in media:
        _check_pixels(stream, options)
    if not any(readable(stream) for stream in media):
        names = ", ".join(sorted({codec_name(stream) for stream in media}))
        raise MediaError("codec-not-allowed", f"no stream has an allowed codec: {names} (docs/formats.md)")


def _check_pixels(stream: "av.stream.Stream", options: DecodeOptions) -> None:
    if stream.type != "video" or stream.codec_context is None:
        return
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > options.max_pixels:
        raise MediaError(
            "too-many-pixels", f"{width}x{height} pixels are more than {options.max_pixels} (decode.max_pixels)"
        )


def _duration(container: "av.container.InputContainer", options: DecodeOptions) -> tuple[float | None, tuple[str, ...]]:
    """Duration that a player shows, or None when there is none to be believed."""
    if container.duration is None or container.duration <= 0:
        return None, ("the file does not say how long it is",)
    seconds = container.duration / MICROSECONDS
    if seconds > options.max_hours * 3600:
        claim = f"the header claims {seconds / 3600:.1f} hours, more than decode.max_hours: not believed"
        return None, (claim,)
    return seconds, ()
