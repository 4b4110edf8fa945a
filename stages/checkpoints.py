"""Places in a sound track where reading can be taken up again, with exactly the result of never having stopped. Pure.

A place is known by an anchor: a block of decoded sound some seconds before it, and where the timeline stood then. To
come back, decode from before the anchor, bring a fresh timeline to where it stood, and place the same blocks again.
When this leads to where the timeline stood at the place, and to the same sound, bit for bit, all that follows is the
same too. When it does not, the way there is to read from the beginning.
"""

import hashlib
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from stages.timeline import SAMPLE_RATE, AudioChunk, Samples, SoundTimeline, TimelineState
from transport.messages import Gap

VERSION = "1"  # of what the states hold and mean
ANCHOR_STEP_SECONDS = 1.0  # between anchors
MAX_ANCHORS = 64  # so they go back 64 s at least; a window, with what surrounds it, is not longer than 35
# The first second behind an anchor comes out wrong, for the resampler works on whole seconds; and the filter's width.
SETTLING_SECONDS = 1.1
CHECKSUM_BYTES = 16

StructT = TypeVar("StructT", bound=msgspec.Struct)


class Anchor(msgspec.Struct, frozen=True, array_like=True):
    """A block of decoded sound that can be found again."""

    start_seconds: float  # by its pts; exactly, as floating point
    timeline: TimelineState  # before the block was placed


class SoundState(msgspec.Struct, frozen=True, array_like=True):
    """A place between two blocks of a sound track."""

    anchor: Anchor
    blocks: int  # from the anchor to the place
    timeline: TimelineState  # at the place
    held_gap: Gap | None  # told of damage before the place, to be joined with what follows
    digest: bytes  # of the sound that the timeline holds back at the place


class AnchorTrail:
    """The anchors of the last minute."""

    def __init__(self) -> None:
        self._anchors: deque[tuple[int, Anchor]] = deque(maxlen=MAX_ANCHORS)
        self._blocks = 0

    def pass_block(self, start_seconds: float | None, timeline: SoundTimeline) -> None:
        """A block is about to be placed. A block without a time of its own cannot be found again."""
        last = self._anchors[-1][1].timeline.end_seconds if self._anchors else float("-inf")
        if start_seconds is not None and timeline.end_seconds - last >= ANCHOR_STEP_SECONDS:
            state = timeline.state()
            if state is not None:
                self._anchors.append((self._blocks, Anchor(start_seconds, state)))
        self._blocks += 1

    def capture(self, first: int, timeline: SoundTimeline, held_gap: Gap | None) -> SoundState | None:
        """Where the timeline stands, so that it gives out the right sound from sample `first` on; None: impossible."""
        latest = first / SAMPLE_RATE - SETTLING_SECONDS
        found = next((pair for pair in reversed(self._anchors) if pair[1].timeline.end_seconds <= latest), None)
        state = timeline.state()
        if found is None or state is None:
            return None
        number, anchor = found
        return SoundState(anchor, self._blocks - number, state, held_gap, digest(timeline.held_back()))


class Tail:
    """The last samples of a stream of chunks."""

    def __init__(self, samples: int) -> None:
        self._wanted = samples
        self._chunks: deque[AudioChunk] = deque()

    def push(self, chunk: AudioChunk) -> None:
        """Take a chunk; one that does not continue those before it begins anew."""
        if self._chunks and self._chunks[-1].end_seconds != chunk.start_seconds:
            self._chunks.clear()
        self._chunks.append(chunk)
        while len(self._chunks) > 1 and sum(len(chunk.samples) for chunk in self._others()) >= self._wanted:
            self._chunks.popleft()

    def _others(self) -> Iterable[AudioChunk]:
        return islice(self._chunks, 1, None)

    def samples(self) -> Samples | None:
        """As many as wanted; None when there are not."""
        heard = np.concatenate([np.zeros(0, np.float32), *(chunk.samples for chunk in self._chunks)])
        return None if len(heard) < self._wanted else heard[len(heard) - self._wanted :]


def digest(arrays: Iterable[NDArray[np.float32] | NDArray[np.int16]]) -> bytes:
    """Of sound: what differs in one bit has another."""
    hashed = hashlib.sha256()
    for array in arrays:
        hashed.update(array.tobytes())
    return hashed.digest()[:CHECKSUM_BYTES]


def seal(state: msgspec.Struct, settings: str) -> bytes:
    """A state as bytes, which only a reader with the same `settings` will take."""
    body = msgspec.msgpack.encode(state)
    return _checksum(body, settings) + body


def unseal(data: bytes, kind: type[StructT], settings: str) -> StructT | None:
    """What was sealed; None for anything else: other settings, another version, damage."""
    body = data[CHECKSUM_BYTES:]
    if data[:CHECKSUM_BYTES] != _checksum(body, settings):
        return None
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except msgspec.DecodeError:  # sealed by code that forgot to count VERSION up
        return None


def _checksum(body: bytes, settings: str) -> bytes:
    return hashlib.sha256(b"\0".join((VERSION.encode(), settings.encode(), body))).digest()[:CHECKSUM_BYTES]
