"""Which deaths of the engine are borne, and what the next engine must know of them. Pure.

An item can poison the device for all others of its process: an illegal access ends the context. The engine's last words
name the items of the batch in which it was lost. Several: they are suspects, and the next engine runs each of them
alone. One: it was alone, so it is to blame; it is condemned, and no engine runs it again. So a batch with one item that
poisons costs two restarts, and nothing but that item.

An engine whose libraries do not give memory back ends, too. What did not fit is never to blame for that: the next
engine runs it alone, with all its memory fresh, and fails it itself if it does not fit even then.
"""

from transport.messages import Condemned, EngineLost, Suspect

# Of suspects, and of condemned items: 2 MB of what the next engine is told. Beyond it the oldest suspects are forgotten
# (they have been run since), and no item is condemned any more: a device that is lost so often is itself to blame.
MAX_REMEMBERED = 10_000

# A device that is lost in whatever it runs would have all items condemned, one by one, a restart for each.
CONDEMNING = 10
MEMORY_STUCK = "memory-stuck"  # code of an engine that ends because memory does not come back


class Restarts:
    """Counts engine deaths with no progress between them, and remembers the items that were lost with them."""

    def __init__(self, limit: int, max_remembered: int = MAX_REMEMBERED) -> None:
        self._limit = limit
        self._max_remembered = max_remembered
        self._suspects: dict[Suspect, None] = {}
        self._condemned: dict[Suspect, Condemned] = {}
        self.fruitless = 0  # deaths since the last progress
        self._unfinished = 0  # deaths since the last task that was done

    @property
    def may_restart(self) -> bool:
        """Whether the deaths so far are borne: at most `run.engine_restarts` in a row without progress, and CONDEMNING
        times as many while items are condemned and no task is done; 0: none.
        """
        return 0 < self._limit >= self.fruitless and self._unfinished <= CONDEMNING * self._limit

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
        self.fruitless = self._unfinished = 0

    def lost(self, words: EngineLost | None) -> None:
        """The engine died, with these last words or without any.

        To condemn an item is progress, for no engine dies of that one again; so are new suspects for want of memory,
        for the next engine settles them.
        """
        self.fruitless += 1
        self._unfinished += 1
        items = words.suspects if words is not None else ()
        stuck = words is not None and words.code == MEMORY_STUCK
        if words is not None and len(items) == 1 and not stuck:
            self._condemn(items[0], words)
            return
        if stuck and not self._suspects.keys() >= set(items):
            self.fruitless = 0
        self._suspect(items)

    def _condemn(self, item: Suspect, words: EngineLost) -> None:
        self._suspects.pop(item, None)
        if item not in self._condemned and len(self._condemned) < self._max_remembered:
            self._condemned[item] = Condemned(item=item, code=words.code, message=words.message)
            self.fruitless = 0

    def _suspect(self, items: tuple[Suspect, ...]) -> None:
        self._suspects.update(dict.fromkeys(item for item in items if item not in self._condemned))
        while len(self._suspects) > self._max_remembered:
            del self._suspects[next(iter(self._suspects))]
