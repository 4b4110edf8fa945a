"""What a batch will take of device memory, and whether it may be launched. Pure: figures go in, decisions come out.

    total ─┬─ weights of the models that are on the device
           ├─ overhead: context, workspaces, caches that cannot be freed: measured, for nobody accounts for them
           └─ room ── the batch's predicted peak, with a margin that shrinks as evidence grows

What a batch takes depends on how many items it has and how long they are. It is not computed from the architecture:
it is measured, at the start by probes and then by every batch, and kept as a table. A value that is not in the table
is bounded by a larger batch that is, or extrapolated from smaller ones, and never by more than one doubling. It grows
with items and with length, and for twice the items at most twofold: whatever contradicts that is corrected by it.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from engine.device import Reading

GIB = 1024**3
LEAST_MARGIN = 0.05  # of the prediction: allocators round up, and the same batch does not always take the same
FIRST_MARGIN = 0.30  # with one observation; shrinks as 1/sqrt(n), as the error of a mean does
DISTRUST = 4  # after a wrong prediction the evidence counts for a quarter
FORGET = 32  # a batch that took less than the table allows lowers it by a 32nd of the difference
GROW_AFTER = 64  # batches at a learned ceiling until the double is tried again: what took the memory may be gone


def power_of_two(count: int) -> int:
    """The largest power of two up to `count`, which is at least 1."""
    return 1 << (count.bit_length() - 1)


@dataclass(slots=True)
class Cell:
    """What batches of one size took."""

    peak_bytes: int
    length: int  # the longest item among them


Row = dict[int, Cell]  # by number of items


@dataclass(slots=True)
class CostModel:
    """bytes(number of items, length of the longest) of one model, learned from what was measured."""

    rows: dict[int, Row] = field(default_factory=dict)  # by length class
    failures: dict[int, dict[int, int]] = field(default_factory=dict)  # length class → items → bytes that were too few
    evidence: int = 0
    _at_ceiling: int = 0

    @property
    def margin(self) -> float:
        """Share of the prediction that is kept free beside it."""
        return max(LEAST_MARGIN, FIRST_MARGIN / math.sqrt(max(1, self.evidence)))

    def expect(self, count: int, length: int) -> int | None:
        """Bytes that a batch should take, without margin; None when nothing was measured yet."""
        kind = length_class(length)
        longer = [self.rows[row] for row in sorted(self.rows) if row > kind][:1]
        own = [self.rows[kind]] if kind in self.rows else []
        shorter = [self.rows[row] for row in sorted(self.rows) if row < kind][-1:]
        rows = own + longer or shorter  # what longer items take is a bound for shorter ones
        if not rows:
            return None
        return max(min(_in_row(row, count, length) for row in rows), self._taken(count, kind))

    def predict(self, count: int, length: int) -> int | None:
        """Bytes to keep for a batch: what it should take, and more than what was too little before, with the margin.

        With the margin, for room that grows byte by byte must not be tried byte by byte.
        """
        expected = self.expect(count, length)
        if expected is None:
            return None
        return math.ceil(max(expected, self._too_few(count, length) + 1) * (1 + self.margin))

    def most(self, length: int, room_bytes: int, limit: int) -> int:
        """How many items of this length a batch may hold: a power of two, 0 when not even one fits."""
        count = power_of_two(max(1, min(limit, self._proven(length))))
        while count:
            predicted = self.predict(count, length)
            if predicted is None:
                return 1  # nothing is known: one item tells
            if predicted <= room_bytes:
                return count
            count //= 2
        return 0

    def observe(self, count: int, length: int, peak_bytes: int) -> None:
        """A batch went well and took so much."""
        expected = self.expect(count, length)
        if expected is not None and peak_bytes > expected * (1 + LEAST_MARGIN):
            self.evidence //= DISTRUST
        self.evidence += 1
        self._lower(count, length, peak_bytes)
        kind = length_class(length)
        cell = self.rows.setdefault(kind, {}).setdefault(count, Cell(peak_bytes, length))
        cell.peak_bytes, cell.length = max(peak_bytes, cell.peak_bytes), max(length, cell.length)
        self._forgive(count, kind)

    def ran_out(self, count: int, length: int, room_bytes: int) -> None:
        """A batch did not fit into so much."""
        self.evidence //= DISTRUST
        self._at_ceiling = 0
        failures = self.failures.setdefault(length_class(length), {})
        failures[count] = max(room_bytes, failures.get(count, 0))
        self._refute(count, length, room_bytes)

    def _taken(self, count: int, kind: int) -> int:
        """The most that a batch no larger than this took."""
        rows = (cells for row, cells in self.rows.items() if row <= kind)
        return max((cell.peak_bytes for cells in rows for n, cell in cells.items() if n <= count), default=0)

    def _lower(self, count: int, length: int, peak_bytes: int) -> None:
        """Lower what the table says of items no longer than these: fewer take no more, and up to twice as many no more
        than in proportion. A cell that once was measured too high would else keep its batches from running again.
        """
        for cells in self.rows.values():
            for n, cell in cells.items():
                excess = cell.peak_bytes - peak_bytes * max(n, count) // count
                if excess > 0 and n <= 2 * count and cell.length <= length:
                    cell.peak_bytes -= excess // FORGET

    def _refute(self, count: int, length: int, room_bytes: int) -> None:
        """Drop what a failure disproves: larger batches of items no shorter that are said to fit into so much."""
        for kind, cells in list(self.rows.items()):
            kept = {n: c for n, c in cells.items() if n < count or c.length < length or c.peak_bytes > room_bytes}
            self.rows[kind] = kept
            if not kept:
                del self.rows[kind]

    def _too_few(self, count: int, length: int) -> int:
        """The most bytes that were too few for a batch no larger than this; -1 when none failed."""
        kind = length_class(length)
        return max(
            (room for row, failed in self.failures.items() if row <= kind for n, room in failed.items() if n <= count),
            default=-1,
        )

    def _proven(self, length: int) -> int:
        """Twice what went well, in items, and in items times length where only shorter ones did: costs may grow faster
        than the line through smaller batches.
        """
        kind = length_class(length)
        most = 0
        for row, cells in self.rows.items():
            for count, cell in cells.items():
                most = max(most, count if row >= kind else count * cell.length // max(1, length))
        return max(1, 2 * most)

    def _forgive(self, count: int, kind: int) -> None:
        """A failure is forgotten when such a batch goes well, or when the next smaller one did again and again, with
        these items or longer ones: what took the memory then may be gone.
        """
        own = self.failures.get(kind, {})
        for smaller in [n for n in own if n <= count]:
            del own[smaller]
        ceilings = [(n, row) for row, failed in self.failures.items() if row <= kind for n in failed]
        lowest, row = min(ceilings, default=(0, kind))
        if lowest and 2 * count >= lowest:
            self._at_ceiling += 1
            if self._at_ceiling >= GROW_AFTER:
                self._at_ceiling = 0
                del self.failures[row][lowest]
        self.failures = {row: failed for row, failed in self.failures.items() if failed}


def length_class(length: int) -> int:
    """Items up to twice as long are counted together."""
    return max(0, length - 1).bit_length()


def _in_row(row: Mapping[int, Cell], count: int, length: int) -> int:
    """Bytes for `count` items from the measurements of one length class, of which there is at least one."""
    points = list(_envelope(row, length))
    larger = [bytes_ for measured, bytes_ in points if measured >= count][:1]
    smaller = [point for point in points if point[0] <= count][-2:]
    if not smaller or smaller[-1][0] == count:
        return larger[0]
    last_count, last_bytes = smaller[-1]
    if larger or len(smaller) == 1:
        return min([math.ceil(last_bytes * count / last_count), *larger])
    before_count, before_bytes = smaller[0]
    slope = (last_bytes - before_bytes) / (last_count - before_count)
    return math.ceil(last_bytes + slope * (count - last_count))


def _envelope(row: Mapping[int, Cell], length: int) -> Iterator[tuple[int, int]]:
    """(count, bytes) in order of count, scaled up to `length`; a larger batch never takes less than a smaller one."""
    highest = 0
    for count in sorted(row):
        cell = row[count]
        scale = max(1.0, length / cell.length) if cell.length else 1.0
        highest = max(highest, math.ceil(cell.peak_bytes * scale))
        yield count, highest


class Budget:
    """The bytes that this process may hold on the device, and what its models take of them."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.fixed_bytes: dict[str, int] = {}  # weights, by model
        self.costs: dict[str, CostModel] = {}
        self.overhead_bytes = 0  # held beside the weights of what is on the device

    def add(self, role: str, fixed_bytes: int, cost: CostModel | None = None) -> None:
        """A model, what its weights take, and what is known of its batches."""
        self.fixed_bytes[role] = fixed_bytes
        self.costs[role] = cost or CostModel()

    def room_bytes(self, reading: Reading, outside_torch: bool) -> int:
        """What a batch may take now: what the budget leaves, and no more than the driver would give. What torch's
        allocator keeps without need is room for torch alone.
        """
        reusable = 0 if outside_torch else reading.cached_bytes
        return max(0, min(self.total_bytes - reading.used_bytes, reading.free_bytes) + reusable)

    def most(self, role: str, length: int, room_bytes: int, limit: int) -> int:
        """How many items of this length a batch may hold; 0 when not even one fits."""
        return self.costs[role].most(length, room_bytes, limit)

    def see_overhead(self, used_bytes: int, resident: Collection[str]) -> None:
        """Take a reading between batches, with caches released, and the models that are on the device."""
        self.overhead_bytes = max(0, used_bytes - sum(self.fixed_bytes[role] for role in resident))


def total_bytes(reading: Reading, memory_gb: float | None, share: float) -> int:
    """The budget: `device.memory_gb`, or a share of what this process has and could get. Never more than that."""
    within_reach = reading.used_bytes + reading.free_bytes
    return min(within_reach, round(memory_gb * GIB)) if memory_gb is not None else int(within_reach * share)
