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
    """First those that count, one with the sum for each thing; then each other note once, in the order of coming."""
    sums: dict[str, int] = {}
    others: dict[str, None] = {}
    for note in notes:
        if found := _COUNTED.fullmatch(note):
            sums[found[1]] = sums.get(found[1], 0) + int(found[2])
        else:
            others[note] = None
    return [*(counted_note(text, count) for text, count in sorted(sums.items())), *others]
