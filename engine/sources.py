"""Where a run's files come from."""

from collections.abc import Iterator
from typing import Protocol

from engine.files import Found


class Source(Protocol):
    """Gives files, one at a time; never blocks."""

    def take(self, above: int | None) -> Found | None:
        """The next file, if there is one now; above: only one of a higher priority than this."""

    @property
    def is_over(self) -> bool:
        """Whether no file will ever come again."""


class FileList:
    """Files that are all known beforehand."""

    def __init__(self, files: Iterator[Found]) -> None:
        self._files = files
        self.is_over = False

    def take(self, above: int | None) -> Found | None:
        """The next file; they all have one priority."""
        if above is not None:
            return None
        found = next(self._files, None)
        self.is_over = found is None
        return found
