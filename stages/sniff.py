"""What the first bytes of a file say that it is: words for error messages, never a decision to decode."""

from typing import NamedTuple


class Kind(NamedTuple):
    """What a file looks like. `container` is true when it claims to be a medium that we would read."""

    name: str
    container: bool


_MAGIC: tuple[tuple[int, bytes, Kind], ...] = (  # offset, bytes, kind
    (4, b"ftyp", Kind("an MP4 or QuickTime file", True)),
    (4, b"moov", Kind("a QuickTime file", True)),
    (4, b"mdat", Kind("a QuickTime file", True)),
    (4, b"wide", Kind("a QuickTime file", True)),
    (0, b"\x1a\x45\xdf\xa3", Kind("a Matroska or WebM file", True)),
    (8, b"AVI ", Kind("an AVI file", True)),
    (8, b"WAVE", Kind("a WAV file", True)),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Kind("a Windows Media file", True)),
    (0, b"FLV\x01", Kind("a Flash video", True)),
    (0, b"OggS", Kind("an Ogg file", True)),
    (0, b"fLaC", Kind("a FLAC file", True)),
    (0, b"\x00\x00\x01\xba", Kind("an MPEG programme stream", True)),
    (0, b".RMF", Kind("a RealMedia file", True)),
    (0, b"\xff\xd8\xff", Kind("a JPEG picture", False)),
    (0, b"\x89PNG", Kind("a PNG picture", False)),
    (0, b"GIF8", Kind("a GIF picture", False)),
    (0, b"BM", Kind("a BMP picture", False)),
    (0, b"II*\x00", Kind("a TIFF picture", False)),
    (0, b"MM\x00*", Kind("a TIFF picture", False)),
    (8, b"WEBP", Kind("a WebP picture", False)),
    (0, b"%PDF", Kind("a PDF document", False)),
    (0, b"PK\x03\x04", Kind("a ZIP archive", False)),
    (0, b"\x1f\x8b", Kind("a gzip archive", False)),
    (0, b"#EXTM3U", Kind("a playlist", False)),
    (0, b"ffconcat", Kind("a playlist", False)),
    (0, b"[playlist]", Kind("a playlist", False)),
)
_PICTURE_BRANDS = (
    b"avif",
    b"avis",
    b"heic",
    b"heix",
    b"mif1",
    b"msf1",
)  # ISO/IEC 23008-12: pictures in an MP4 box structure


def sniff(head: bytes) -> Kind:
    """Name what a file with these first bytes (64 or more) looks like."""
    if head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS:
        return Kind("a HEIF or AVIF picture", False)
    for offset, magic, kind in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind
    if _is_transport_stream(head):
        return Kind("an MPEG transport stream", True)
    return Kind("text", False) if _is_text(head) else Kind("nothing that is known here", False)


def _is_transport_stream(head: bytes) -> bool:
    return any(
        head[start : start + 377 : 188] == b"\x47\x47\x47" for start in (0, 4)
    )  # 4: m2ts puts a time before each


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head[: len(head) - 4].decode("utf-8")  # the last character may be cut in the middle
    except UnicodeDecodeError:
        return False
    return True
