"""Which deaths of the engine are borne, and what the next engine must know of them. Pure.

An item can poison the device for all others of its process: an illegal access ends the context. The engine's last words
name the items of the batch in which it was lost. Several: they are suspects, and the next engine runs each of them
alone. One: it was alone, so it is to blame; it is condemned, and no engine runs it again. So a batch with one item that
poisons costs two restarts, and nothing but that item.
"""

from transport.messages import Condemned, EngineLost, Suspect

# Of suspects, and of condemned items: 2 MB of what the next engine is told. Beyond it the oldest suspects are forgotten
# (they have been run since), and no item is condemned any more: a device that is lost so often is itself to blame.
MAX_REMEMBERED = 10_000


class Restarts:
    """Counts engine deaths with no progress between them, and remembers the items that were lost with them."""

    def __init__(self, limit: int, max_remembered: int = MAX_REMEMBERED) -> None:
        self._limit = limit
        self._max_remembered = max_remembered
        self._suspects: dict[Suspect, None] = {}
        self._condemned: dict[Suspect, Condemned] = {}
        self.fruitless = 0  # deaths since the last progress

    @property
    def may_restart(self) -> bool:
        """Whether the deaths so far are borne: at most `run.engine_restarts` in a row without progress; 0: none."""
        return 0 < self._limit >= self.fruitless

    @property
    def suspects(self) -> tuple[Suspect, ...]:
        """Items to be run alone, in a batch of one; the oldest first."""
        return tuple(self._suspects)

    @property
    def condemned(self) -> tuple[Condemned, ...]:
        """Items to be recorded as failed without being run; the oldest first."""
        return tuple(self._condemned.values())

    def progress(self) -> None:
        """A task became durable: what the engine dies of does not stop everything."""
        self.fruitless = 0

    def lost(self, words: EngineLost | None) -> None:
        """The engine died, with these last words or without any.

        To condemn an item is progress: no engine dies of that one again.
        """
        self.fruitless += 1
        items = words.suspects if words is not None else ()
        if words is not None and len(items) == 1:
            self._condemn(items[0], words)
        else:
            self._suspect(items)

    def _condemn(self, item: Suspect, words: EngineLost) -> None:
        self._suspects.pop(item, None)
        if item not in self._condemned and len(self._condemned) < self._max_remembered:
            self._condemned[item] = Condemned(item=item, code=words.code, message=words.message)
            self.progress()

    def _suspect(self, items: tuple[Suspect, ...]) -> None:
        self._suspects.update(dict.fromkeys(item for item in items if item not in self._condemned))
        while len(self._suspects) > self._max_remembered:
            del self._suspects[next(iter(self._suspects))]
