"""What the supervisor needs of the daemon around it."""

from pathlib import Path
from typing import Any, Protocol

from engine.children import Child


class Extension(Protocol):
    """What the daemon adds to a run."""

    def started(self, directory: Path) -> None:
        """The children have been started; directory: of the run's sockets."""

    def ready(self, child: Child) -> None:
        """A child can take work, for the first time or again."""

    def heard(self, message: Any) -> None:
        """An answer of a child that no task waits for."""

    def turn(self) -> None:
        """Called in each turn of the loop. May raise LedgerUnavailable."""

    def tick(self) -> None:
        """Called several times a second, while the run drains, too."""
