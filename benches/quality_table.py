"""The quality bench's figures as a table for people. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from benches.measures import RANKS, Row

NAME_WIDTH = 46
# Key of a row, title, how it is shown: format and width.
WORDS = (
    ("language", "language", "", 10),
    ("labels", "labels", "", 9),
    ("words", "said", "", 7),
    ("substituted", "subst", "", 7),
    ("deleted", "deleted", "", 9),
    ("inserted", "inserted", "", 10),
    ("rate", "WER", ".1%", 9),
    ("elsewhere", "elsewhere", "", 11),
)
TURNS = (
    ("people", "people", "", 8),
    ("voices", "voices", "", 8),
    ("speech_seconds", "speech s", ".1f", 10),
    ("missed_seconds", "missed", ".1f", 8),
    ("false_seconds", "false", ".1f", 8),
    ("confused_seconds", "confused", ".1f", 10),
    ("rate", "DER", ".1%", 8),
    ("rate_without_overlap", "no overlap", ".1%", 12),
    ("rate_without_collar", "no collar", ".1%", 11),
)
NAMES = (
    ("enrolled_seconds", "speech s", ".1f", 10),
    ("right_seconds", "right", ".1f", 8),
    ("wrong_seconds", "wrong", ".1f", 8),
    ("unknown_seconds", "unknown", ".1f", 9),
    ("unheard_seconds", "unheard", ".1f", 9),
    ("accuracy", "accuracy", ".1%", 10),
    ("stranger_seconds", "strangers s", ".1f", 13),
    ("misnamed_seconds", "misnamed", ".1f", 10),
)
SEARCH = (
    ("points", "points", "", 8),
    ("questions", "questions", "", 11),
    *((f"recall_at_{k}", f"@{k}", ".1%", 9) for k in RANKS),
)
Columns = Sequence[tuple[str, str, str, int]]


def table(result: Mapping[str, Any]) -> str:
    """All figures; those in which an untrained model has a part say so."""
    words, turns, names, search = (result[name] for name in ("words", "turns", "names", "search"))
    lines = [f"not indexed: {name}: {why}" for name, why in result["not_indexed"].items()]
    lines += part("WORDS, by Whisper's normaliser", words, WORDS, "no words are labelled")
    title = f"TURNS, with a collar of {turns['collar_seconds']:g} s on each side of a border"
    lines += part(title, turns, TURNS, "no turns are labelled")
    lines += part(f"NAMES, {len(names['enrolled'])} people enrolled", names, NAMES, "no turns are labelled")
    lines += [f"  not enrolled: {name}: {why}" for name, why in names["refused"].items()]
    lines += part("SEARCH, share of questions with an answer among the first hits", search, SEARCH, "nothing to search")
    return "\n".join(lines)


def part(title: str, section: Mapping[str, Any], columns: Columns, nothing: str) -> list[str]:
    """The lines of one section: title, heads of the columns, rows."""
    models = section.get("models")
    if models is not None:
        title = f"{title}; made by {', '.join(models)}" if models else f"{title}; NOTHING OF THIS KIND IS STORED"
    if not section["rows"]:
        return ["", title, f"  {nothing}"]
    heads = "".join(f"{head:>{width}}" for _, head, _, width in columns)
    return [
        "",
        title,
        " " * NAME_WIDTH + heads,
        *(line(row, columns, section.get("untrained", ())) for row in section["rows"]),
    ]


def line(row: Row, columns: Columns, untrained: Sequence[str]) -> str:
    """A row; a value that there is none of is left out."""
    cells = "".join(f"{cell(row.get(key), form):>{width}}" for key, _, form, width in columns)
    marked = row.get("untrained", untrained)
    return f"  {row['name'][: NAME_WIDTH - 3]:{NAME_WIDTH - 2}}{cells}{verdict(marked)}"


def cell(value: object, form: str) -> str:
    return "-" if value is None else format(value, form)


def verdict(untrained: Sequence[str]) -> str:
    """What a figure is worth."""
    return f"  means nothing: {', '.join(untrained)}" if untrained else ""
