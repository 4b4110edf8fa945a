"""Caption files beside a video: finding them, and reading their text whatever its encoding."""

import contextlib
import io
import os
import re
import stat
from pathlib import Path

from charset_normalizer import from_bytes

from stages.errors import MediaError
from transport.messages import CaptionTrack

FORMATS = {".srt": "subrip", ".vtt": "webvtt", ".ass": "ass", ".ssa": "ass"}
MAX_BYTES = 16_000_000  # the captions of a long film are 200 kB
# What captions were written in before UTF-8. Few, so that a short file is not taken for something rare.
_WINDOWS = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp874", "cp949"]
_JAPANESE = ["cp932", "euc_jp"]
LEGACY_ENCODINGS = [*_WINDOWS, *_JAPANESE, "koi8_r", "gb18030", "big5"]
HIRAGANA_SHARE = 0.2  # of all characters beyond ASCII: in Japanese about half, in what is none hardly any
_NOT_LANGUAGES = {"forced", "default", "sdh", "cc"}  # marks that people put into names, beside or after the language
_TAG = re.compile(r"[a-z]{2,3}([-_][a-z0-9]{2,8})*|forced|default")


def find_sidecars(path: bytes) -> tuple[CaptionTrack, ...]:
    """Caption files beside a medium: NAME.srt and NAME.LANGUAGE.srt, NAME with or without its own extension.

    `.srt`, `.vtt`, `.ass` and `.ssa`, regular files, not empty, up to 16 MB. Those without a language come first, then
    by name. Tracks marked `forced` hold only the lines in foreign languages, and are no captions of the whole. A
    directory that cannot be listed has no sidecars.
    """
    medium = Path(os.fsdecode(path))
    try:
        found = [(file, tags) for file in medium.parent.iterdir() if (tags := _tags(file, medium)) is not None]
    except OSError:  # the medium itself can still be readable, and what is wrong shows when it is opened
        return ()
    tracks = [
        CaptionTrack(format=FORMATS[file.suffix.lower()], language=_language(tags), sidecar=os.fsencode(file))
        for file, tags in found
        if "forced" not in tags and _usable(file)
    ]
    return tuple(sorted(tracks, key=lambda track: (track.language is not None, track.sidecar)))


def _tags(file: Path, medium: Path) -> list[str] | None:
    """What stands between the medium's name and the extension; None when it is no caption file of this medium."""
    if file.suffix.lower() not in FORMATS:
        return None
    for stem in (medium.name, medium.stem):
        if file.stem == stem:
            return []
        if file.stem.startswith(f"{stem}."):
            tags = [tag.lower() for tag in file.stem[len(stem) + 1 :].split(".")]
            if all(_TAG.fullmatch(tag) for tag in tags):
                return tags
    return None


def _language(tags: list[str]) -> str | None:
    languages = [tag for tag in tags if tag not in _NOT_LANGUAGES]
    return languages[0].replace("_", "-") if languages else None


def _usable(file: Path) -> bool:
    try:
        status = file.stat()
    except OSError:  # a link to nowhere, or gone since the directory was read
        return False
    return stat.S_ISREG(status.st_mode) and 0 < status.st_size <= MAX_BYTES


def read_text(path: bytes) -> str:
    """The text of a caption file: UTF-8 or UTF-16, with or without a byte order mark, or the likeliest legacy encoding.

    Raises MediaError `captions-unreadable`.
    """
    try:
        with io.FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)) as file:  # a pipe must not stop us
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise MediaError("captions-unreadable", f"the caption file cannot be read ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise MediaError("captions-unreadable", f"the caption file is larger than {MAX_BYTES // 1_000_000} MB")
    return decode_text(data)


def decode_text(data: bytes) -> str:
    """Text of unknown encoding. Raises MediaError `captions-unreadable` when it looks like no text at all."""
    return data.decode(encoding_of(data), errors="replace")


def encoding_of(data: bytes) -> str:
    """The likeliest encoding of a text. Raises MediaError `captions-unreadable` when it looks like no text at all."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    with contextlib.suppress(UnicodeDecodeError):
        if "\0" not in data.decode("utf-8"):
            return "utf-8-sig"
    if data.count(0) > len(data) // 4:  # every other byte of European UTF-16 is zero
        return "utf-16-be" if data[0] == 0 else "utf-16-le"
    for encoding in _JAPANESE:
        if _is_japanese(data, encoding):
            return encoding
    best = from_bytes(data, cp_isolation=LEGACY_ENCODINGS).best()
    if best is None:
        raise MediaError(
            "captions-unreadable", "the caption file is not text in any encoding known here: convert it to UTF-8"
        )
    return best.encoding


def _is_japanese(data: bytes, encoding: str) -> bool:
    """Whether it makes sense in this encoding. As Korean, which charset-normalizer takes it for, it can be read too."""
    try:
        beyond = [character for character in data.decode(encoding) if not character.isascii()]
    except UnicodeDecodeError:
        return False
    return sum("ぁ" <= character <= "ん" for character in beyond) > HIRAGANA_SHARE * len(beyond)
