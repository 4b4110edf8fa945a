"""Notes that count: each section of a task says how many, and together they say the sum. Pure."""

import re
from collections.abc import Iterable

RETRIED = "windows of speech that were decoded again at a higher temperature"
DOUBTFUL = "windows of speech whose text is kept although it is repetitive or improbable (`doubts`)"
_COUNTED = re.compile(rf"({'|'.join(map(re.escape, (RETRIED, DOUBTFUL)))}): (\d+)")


def counted_note(text: str, count: int) -> str:
    """text: one of those above."""
    return f"{text}: {count}"


def summed_notes(notes: Iterable[str]) -> list[str]:
    """Each note once, where it came first; of those that count the same thing, one with the sum."""
    counts: dict[str, int] = {}  # 0: counts nothing
    for note in notes:
        found = _COUNTED.fullmatch(note)
        text, count = (found[1], int(found[2])) if found else (note, 0)
        counts[text] = counts.get(text, 0) + count
    return [counted_note(text, count) if count else text for text, count in counts.items()]
