"""The consumer without its sockets: the way of every message into the store, by way of the spool while it is away.

    receive ─► queue (memory) ─┬─────────────────────────► store ─► flush ─► TaskDurable ─► Committed ─► credit
                               └─► spool (disk) ─► replay ─► store ─► flush ─► TaskDurable ─► Committed ─► deleted
                                     └─► credit

One flush serves many writes (engine/group_commit.py); a write or flush that fails has all of them written again.
Order is kept: nothing in memory is written before all that is in the spool. What has left memory for the disk, or for
the store, gives its credit back; a TaskResult in the store does when the supervisor has it in the ledger.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import msgspec

from engine.acknowledgements import Acknowledgements
from engine.failpoints import DURING_REPLAY, reach
from engine.group_commit import Group
from engine.spool import Spool
from engine.store_work import Operation, Retry, StoreAccess, drop_replaced, perform, write
from engine.writer_items import Announced, Item, Labels, Waiting, batch_of, points_of, results_of
from stages.errors import StoreError
from stages.store import Store
from transport.codec import encode
from transport.messages import (
    Label,
    Message,
    OperationDone,
    Points,
    Remove,
    Searchable,
    TaskDurable,
    TaskKey,
    TaskResult,
    ToConsumer,
)

LONGEST_WAIT_SECONDS = 0.1  # for messages, while there is nothing to do
REPLAY_BATCHES = 4  # written in one step: more than one, so that a replay gains on what comes meanwhile
DRAIN_PATIENCE_SECONDS = 10.0  # how long a store may be away before a drain leaves what is spooled to the next run
UNCOMMITTED_RESULTS = 1000  # above it nothing more is written: the ledger cannot be, and they stay in memory till it is
VACUUM_SECONDS = 1800.0  # at least so long between two: each holds everything else up, for seconds in a large store

_decode = msgspec.msgpack.Decoder(ToConsumer).decode


class Writer:
    """Messages in; points in the store, words for the supervisor and credit out. Belongs to one thread."""

    def __init__(
        self,
        access: StoreAccess,
        spool: Spool,
        batch_points: int,
        commit_bytes: int,
        say: Callable[[Message], object],
        labelling: Labels,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """batch_points: written at once, between two looks at what has come; commit_bytes: of credit that may wait for
        a flush; labelling: given each label in its turn, and told of each video whose points are gone.
        """
        self._access = access
        self._spool = spool
        self._batch_points = batch_points
        self._say = say
        self._labelling = labelling
        self._clock = clock
        self.acknowledgements = Acknowledgements()
        self._queue: deque[Item] = deque()
        self._group = Group(commit_bytes)  # written, and not durable yet
        self._replaying: list[Item] = []  # read back from the spool, and not written yet
        self._operations: deque[Waiting] = deque()
        self._uncommitted: dict[tuple[TaskKey, int], list[Item]] = {}
        self._announced = Announced()
        self._disk = Retry()
        self._disk_trouble = ""
        self._is_spool_full = False
        self._has_removed = False
        self._vacuum_at = clock() + VACUUM_SECONDS
        self.points = 0

    # --- what comes ---------------------------------------------------------------------------------------------------

    def receive(self, sender: bytes, message: Points | TaskResult, payload: memoryview | None, cost_bytes: int) -> None:
        """Take a message; its credit is the sender's again when `acknowledgements` says so."""
        ticket = self.acknowledgements.receive(sender, cost_bytes)
        self._queue.append(Item(message, payload if payload is not None else b"", cost_bytes, ticket))

    def committed(self, key: TaskKey, section: int) -> None:
        """A result is in the ledger."""
        for item in self._uncommitted.pop((key, section), ()):
            self._settle(item)

    def operate(self, operation: Operation | Label) -> None:
        """Do this when all that was received before it is in the store and will not be written again."""
        self._operations.append(Waiting(operation, self.acknowledgements.next_ticket, self._spool.seal()))

    # --- what is done -------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Do what can be done now. Waits for the store's answers, never for the store to come back.

        Raises:
            StoreError: the store refuses for good, or has been away too long.
        """
        if not self._access.is_prepared:
            return
        if not self._access.is_made and self._access.may_try():
            self._access.attempt(lambda store: None)
        if self._queue and (self._access.has_failed_twice or self._is_replaying):
            self._spool_queue()
        for _ in range(REPLAY_BATCHES if self._is_replaying else 1):
            if not (self._access.may_try() and self._advance()):
                break
        if self._is_commit_due():
            self._commit()
        self._vacuum()

    def _vacuum(self) -> None:
        """Have the store give back the room of removed points, now and then, when there is nothing else to do."""
        is_due = self._has_removed and self._clock() >= self._vacuum_at
        if is_due and self._access.away is None and not (self._has_work() or self._group):
            self._vacuum_at = self._clock() + VACUUM_SECONDS
            self._has_removed = not self._access.attempt(lambda store: store.optimize())

    def wait_seconds(self) -> float:
        """How long the caller may wait for messages; 0 while there is something to do."""
        if self._access.is_prepared and (self._has_work() or self._is_commit_due()):
            return min(self._access.wait_seconds(), LONGEST_WAIT_SECONDS)
        return min(self._group.wait_seconds(self._clock()), LONGEST_WAIT_SECONDS)

    @property
    def is_ready(self) -> bool:
        """Whether work may begin: the collections are there, or the store will be waited for however long it takes."""
        waits_for_ever = self._access.patience_seconds == math.inf and self._access.away is not None
        return self._access.is_prepared and (self._access.is_made or waits_for_ever)

    def may_end(self) -> bool:
        """Whether a drain is over: nothing is left, or the store is away and what is left may be left.

        What is in the spool is for the next run. What is not, and cannot be, was not acknowledged: it is done again.
        """
        if not self._access.is_prepared:
            return True
        if self._uncommitted or self._group:
            return False
        if not (self._queue or self._replaying or self._operations) and self._spool.is_empty:
            return True
        if self._queue and self._access.patience_seconds != math.inf:
            return False  # the store comes back, or is given up
        return self._access.away_seconds() > DRAIN_PATIENCE_SECONDS

    def state(self) -> str:
        """For people: "writing", or "waiting: " and why."""
        if self._access.away is None:
            return "writing from the spool" if self._is_replaying else "writing"
        return f"waiting: {self._access.away}" + self._spool_state()

    def _spool_state(self) -> str:
        if self._disk_trouble:
            return f"; the spool cannot be written: {self._disk_trouble}"
        return "; the spool is full (store.spool_mb)" if self._is_spool_full else ""

    # --- into the store -----------------------------------------------------------------------------------------------

    @property
    def _is_replaying(self) -> bool:
        return bool(self._replaying) or self._spool.has_unread()

    @property
    def _is_ledger_behind(self) -> bool:
        return len(self._uncommitted) + self._group.results >= UNCOMMITTED_RESULTS

    def _has_work(self) -> bool:
        if self._operations and self._is_due(self._operations[0]):
            return True
        if self._is_ledger_behind:
            return False
        if self._is_replaying:
            return bool(self._replaying) or self._spool.has_unread(self._segment_limit())
        return bool(self._queue) and self._queue[0].ticket < self._ticket_limit()

    def _ticket_limit(self) -> float:
        """Messages from this one on come after the next operation."""
        return self._operations[0].ticket if self._operations else math.inf

    def _segment_limit(self) -> int | None:
        return self._operations[0].segment if self._operations else None

    def _advance(self) -> bool:
        """Do the next operation, or write the next batch; False when nothing can be done, or the store is away."""
        if self._operations and self._is_due(self._operations[0]):
            return self._operate(self._operations[0].operation)
        if self._is_ledger_behind:
            return False
        if not self._replaying:
            self._replaying = batch_of(self._read_back(), self._batch_points)
        if self._replaying:
            return self._write(self._replaying) and self._replayed()
        # What is in memory came after all that is on the disk: if an operation holds that up, it holds this up, too.
        waiting = (item for item in self._queue if item.ticket < self._ticket_limit())
        batch = batch_of(waiting, self._batch_points)
        if not (batch and self._write(batch)):
            return False
        for _ in batch:
            self._queue.popleft()
        return True

    def _read_back(self) -> Iterator[Item]:
        while (record := self._spool.read(self._segment_limit())) is not None:
            cost_bytes = len(record.header) + len(record.payload)
            yield Item(_decode(record.header), record.payload, cost_bytes, segment=record.segment)

    def _write(self, batch: list[Item]) -> bool:
        points, results = points_of(batch), results_of(batch)

        def write_all(store: Store) -> None:
            write(store, points, self._batch_points)
            drop_replaced(store, results)

        if not self._attempt(write_all, chain(self._group, batch)):
            self._take_back()
            return False
        self._group.add(batch, self._clock())
        return True

    def _attempt(self, action: Callable[[Store], None], items: Iterable[Item]) -> bool:
        try:
            return self._access.attempt(action)
        except StoreError as error:
            raise self._explained(error, any(item.segment is not None for item in items)) from error

    def _replayed(self) -> bool:
        reach(DURING_REPLAY)
        self._replaying = []
        return True

    # --- onto the disk ------------------------------------------------------------------------------------------------

    def _is_commit_due(self) -> bool:
        """Of a full group; of another when there is no more to write, after a moment, or at once for an operation."""
        if not (self._group and self._access.may_try()):
            return False
        if self._group.is_full:
            return True
        return not self._has_work() and (bool(self._operations) or not self._group.wait_seconds(self._clock()))

    def _commit(self) -> None:
        if self._attempt(lambda store: store.flush(), self._group):
            self.points += self._group.points
            for item in self._group.commit(self._clock()):
                self._durable(item)
        else:
            self._take_back()

    def _take_back(self) -> None:
        """What was written and may be lost is written again, or goes into the spool, in its old place."""
        items = self._group.take()
        self._replaying = [item for item in items if item.segment is not None] + self._replaying
        self._queue.extendleft(reversed([item for item in items if item.segment is None]))

    def _explained(self, error: StoreError, is_spooled: bool) -> StoreError:
        if not is_spooled or error.code == "store-lost":
            return error
        where = f"the points lie in the spool {self._spool.directory}: to go on without them, move it away"
        return StoreError(error.code, f"{error.message}; {where}")

    def _durable(self, item: Item) -> None:
        """The item, and all before it, is on the store's disk."""
        match item.message:
            case Points(key=key) as points:
                if points.ids and self._announced.add(key):
                    self._say(Searchable(key=key))
                self._settle(item)
            case TaskResult(key=key, section=section) as result:
                self._uncommitted.setdefault((key, section), []).append(item)
                self._say(TaskDurable(result=result))
                if result.resume is None:
                    self._announced.forget(key)

    def _settle(self, item: Item) -> None:
        if item.segment is None:
            self.acknowledgements.settle(item.ticket)
        else:
            self._spool.done(item.segment)

    # --- into the spool -----------------------------------------------------------------------------------------------

    def _spool_queue(self) -> None:
        """Put what waits in memory on the disk; it stays in memory when that cannot be."""
        if not self._disk.may_try(self._clock()):
            return
        try:
            while self._queue and (count := self._spool.append(self._spoolable())):
                for _ in range(count):
                    self.acknowledgements.settle(self._queue[0].ticket)
                    self._mark_operations(self._queue.popleft().ticket)
        except OSError as error:
            self._disk.failed(self._clock())
            self._disk_trouble = f"{error.strerror} ({self._spool.directory})"
            return
        self._disk.worked()
        self._disk_trouble = ""
        self._is_spool_full = bool(self._queue) and not self._spool.is_empty

    def _spoolable(self) -> Iterator[tuple[bytes, bytes | memoryview]]:
        """Records of the queue, up to where an operation came between."""
        first = self._queue[0].ticket
        limit = next((each.ticket for each in self._operations if each.ticket > first), math.inf)
        return ((encode(item.message), item.payload) for item in self._queue if item.ticket < limit)

    def _mark_operations(self, ticket: int) -> None:
        """A message went into the spool: operations that came after it wait for its segment, too."""
        for each in self._operations:
            if each.ticket > ticket:
                each.segment = self._spool.seal()

    # --- operations ---------------------------------------------------------------------------------------------------

    def _is_due(self, waiting: Waiting) -> bool:
        """Nothing that came before it can be written after it: not by us, nor by a successor, nor sent once more."""
        return self.acknowledgements.oldest >= waiting.ticket and self._spool.oldest >= waiting.segment

    def _operate(self, operation: Operation | Label) -> bool:
        if isinstance(operation, Label):
            self._operations.popleft()
            self._labelling.add(operation)
            return True
        error: str | None = None
        try:
            if not self._access.attempt(lambda store: perform(store, operation)):
                return False
        except StoreError as refusal:
            if refusal.code == "store-lost":
                raise
            error = f"{refusal.code}: {refusal.message}"
        self._operations.popleft()
        if isinstance(operation, Remove):
            self._has_removed = True
            self._labelling.forget(operation.video_id)
        self._say(OperationDone(request=operation.request, error=error))
        return True
