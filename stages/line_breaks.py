"""Where a line of text may be broken, and how wide it is: for any script, without a font. Pure."""

import unicodedata
from collections.abc import Iterator
from itertools import groupby

LINE_COLUMNS = 42  # the usual limit of subtitles (Netflix, "Timed Text Style Guide: General Requirements")

# The typographic rules of French, Spanish, Chinese and Japanese: what begins no line, and what ends none.
_BEGINS_NO_LINE = frozenset(
    "!?:;,.…%)]}»”’›、。，．！？：；・ー々〕〉》」』】）］｝ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ"
)
_ENDS_NO_LINE = frozenset("([{«“„‚‹¿¡〔〈《「『【（［｛")
_JOINER = "\u200d"  # makes one emoji of two
_ATTACHED = frozenset({"Mn", "Mc", "Me", "Cf"})  # categories of characters that belong to the one before
_SKIN_TONES = ("\U0001f3fb", "\U0001f3ff")
_HANGUL = (("\u1100", "\u11ff"), ("\u3130", "\u318f"), ("\uac00", "\ud7ff"))  # wide, but words have spaces between them


def pieces(text: str) -> list[tuple[str, bool]]:
    """The text in parts that no break may divide, each with whether a space stands before it; none wider than a line.

    Breaks are at spaces, and beside Chinese characters and kana; not before closing marks, nor behind opening ones. A
    word that is wider than a line is broken where the line is full.
    """
    found: list[tuple[str, bool]] = []
    for piece, is_spaced in _smallest(text):
        last, last_is_spaced = found[-1] if found else ("", False)
        joined = last + " " * is_spaced + piece
        if last and _belong_together(last, piece) and columns(joined) <= LINE_COLUMNS:
            found[-1] = (joined, last_is_spaced)
        else:
            found += [(part, is_spaced and index == 0) for index, part in enumerate(_filled(piece))]
    return found


def columns(text: str) -> int:
    """How wide a text is: two columns for wide characters (Chinese, kana, Hangul, emoji), none for attached marks."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(cluster[0]) in "WF" else 1 for cluster in _clusters(text))


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning with an ellipsis, in at most `limit` columns."""
    if columns(text) <= limit:
        return text
    clusters = _clusters(text)
    while columns("".join(clusters)) >= limit:
        clusters.pop()
    return "".join(clusters).rstrip() + "…"


def _smallest(text: str) -> Iterator[tuple[str, bool]]:
    """The parts between all places where some script breaks lines."""
    for chunk in text.split():
        clusters = [chunk] if chunk.isascii() else _clusters(chunk)
        groups = groupby(enumerate(clusters), key=lambda each: each[0] if _is_ideograph(each[1][0]) else -1)
        for index, (_, group) in enumerate(groups):
            yield "".join(cluster for _, cluster in group), index == 0


def _filled(piece: str) -> list[str]:
    """A piece in lines, should it be wider than one."""
    if columns(piece) <= LINE_COLUMNS:
        return [piece]
    parts = [""]
    for cluster in _clusters(piece):
        if columns(parts[-1] + cluster) > LINE_COLUMNS:
            parts.append("")
        parts[-1] += cluster
    return parts


def _belong_together(last: str, piece: str) -> bool:
    return _BEGINS_NO_LINE.issuperset(piece) or _ENDS_NO_LINE.issuperset(last)


def _clusters(text: str) -> list[str]:
    """Characters with the marks that belong to them: about what people take for one character."""
    clusters: list[str] = []
    for char in text:
        if clusters and (_is_attached(char) or clusters[-1].endswith(_JOINER)):
            clusters[-1] += char
        else:
            clusters.append(char)
    return clusters


def _is_attached(char: str) -> bool:
    return unicodedata.category(char) in _ATTACHED or _SKIN_TONES[0] <= char <= _SKIN_TONES[1]


def _is_ideograph(char: str) -> bool:
    return unicodedata.east_asian_width(char) in "WF" and not any(first <= char <= last for first, last in _HANGUL)
