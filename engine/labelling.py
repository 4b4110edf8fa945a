"""Who speaks when, and what they are called: the consumer's part of it, a little in each turn, so that writes and
searches go on meanwhile.

    Label ─► read the video's stored voices by pages ─► cluster, in a thread ─► write labels by chunks ─► OperationDone
    SpeakersTask ─► change the profiles, give voices their names by pages ─► SpeakersDone

Labels are a function of what is stored, so a killed labelling is simply done again, and one whose store goes away in
the midst of it begins anew. A command that is broken off is told so.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from engine.store_work import StoreAccess
from stages.diarization import Diarization, Diarizer
from stages.errors import SluiceError, StoreError
from stages.options import VoiceOptions
from stages.speakers import Roster, Steps, labelled, read_roster, steps
from stages.store import VOICES, Filter, Store, StoredPoint
from transport.messages import Label, Message, OperationDone, SpeakersDone, SpeakersTask

READ_POINTS = 1024  # in one turn: 40 ms of an embedded store
ROSTER_SECONDS = 600.0  # after which the archive's own score distribution is looked at again


@dataclass(slots=True)
class _Work:
    """One video on its way."""

    label: Label
    pages: Iterator[int] | None = None  # reads the voices into the diarizer
    diarizer: Diarizer | None = None
    thread: threading.Thread | None = None
    found: list[Diarization | Exception] = field(default_factory=list)  # by the thread: one of them
    writing: Iterator[int] | None = None


class Labelling:
    """Labels one video after the other; commands go first. Belongs to the consumer's thread."""

    def __init__(
        self,
        access: StoreAccess,
        options: VoiceOptions,
        say: Callable[[Message], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._access = access
        self._options = options
        self._say = say
        self._clock = clock
        self._labels: deque[Label] = deque()
        self._work: _Work | None = None
        self._tasks: deque[SpeakersTask] = deque()
        self._steps: Steps | None = None  # of the first task
        self._rosters: dict[str, tuple[float, Roster]] = {}  # by model, and when it was read

    def add(self, message: Label | SpeakersTask) -> None:
        """Do this in its turn."""
        if isinstance(message, Label):
            self._labels.append(message)
        else:
            self._tasks.append(message)

    def forget(self, video_id: str) -> None:
        """Its points have been removed: nothing of it may be written any more."""
        dropped = [label for label in self._labels if label.video_id == video_id]
        self._labels = deque(label for label in self._labels if label.video_id != video_id)
        if self._work is not None and self._work.label.video_id == video_id:
            dropped.append(self._work.label)
            self._work = None  # its thread ends by itself
        for label in dropped:
            self._say(OperationDone(request=label.request))

    @property
    def can_go_on(self) -> bool:
        """Whether `step` would do something now."""
        if not (self._access.is_made and self._access.may_try()):
            return False
        if self._may_take_task:
            return True
        if self._work is None:
            return bool(self._labels)
        return self._work.thread is None or not self._work.thread.is_alive()

    def step(self) -> None:
        """Do a little. Raises StoreError when the store has been away for too long."""
        if not self.can_go_on:
            return
        if self._may_take_task:
            self._go_on_with_task()
        else:
            self._go_on_with_label()

    # --- commands -----------------------------------------------------------------------------------------------------

    @property
    def _may_take_task(self) -> bool:
        """Not while labels are written: those would be by the names that were."""
        return bool(self._tasks) and (self._work is None or self._work.writing is None)

    def _go_on_with_task(self) -> None:
        request = self._tasks[0].request
        try:
            if not self._access.attempt(self._advance_task):
                away = self._access.away
                self._end_task(SpeakersDone(request=request, body=None, error=f"{away}; then ask again"))
        except SluiceError as error:
            if error.code == "store-lost":
                raise
            self._end_task(SpeakersDone(request=request, body=None, error=f"{error.code}: {error.message}"))

    def _advance_task(self, store: Store) -> None:
        if self._steps is None:
            self._steps = steps(store, self._tasks[0])
        try:
            next(self._steps)
        except StopIteration as end:
            self._end_task(SpeakersDone(request=self._tasks[0].request, body=end.value))

    def _end_task(self, answer: SpeakersDone) -> None:
        self._tasks.popleft()
        self._steps = None
        self._rosters.clear()
        self._say(answer)

    # --- labels -------------------------------------------------------------------------------------------------------

    def _go_on_with_label(self) -> None:
        work = self._work = self._work or _Work(self._labels.popleft())
        try:
            if not self._access.attempt(lambda store: self._advance_label(store, work)):
                self._work = _Work(work.label)
        except StoreError as error:
            if error.code == "store-lost":
                raise
            if error.code == "voices-changed":  # more of them came meanwhile
                self._labels.append(work.label)
                self._work = None
            else:
                self._end_label(f"{error.code}: {error.message}")

    def _advance_label(self, store: Store, work: _Work) -> None:
        if work.writing is not None:
            if next(work.writing, None) is None:
                self._end_label(None)
        elif work.thread is not None:
            (found,) = work.found
            if isinstance(found, Exception):
                raise found
            work.writing = self._written(store, work.label, found)
        elif work.pages is None:
            self._open(store, work)
        elif next(work.pages, None) is None:
            assert work.diarizer is not None
            work.thread = threading.Thread(target=_cluster, args=(work.diarizer, work.found), daemon=True)
            work.thread.start()

    def _open(self, store: Store, work: _Work) -> None:
        first = next(store.scroll(VOICES, True, _voices_of(work.label), page=1), None)
        if first is None:
            work.writing = self._written(store, work.label, None)
        else:
            work.diarizer = Diarizer(len(first.vectors["voice"]), self._options)
            work.pages = _read(store, work.label, work.diarizer)

    def _written(self, store: Store, label: Label, found: Diarization | None) -> Iterator[int]:
        return labelled(store, label.video_id, label.model, found, self._roster(store, label.model))

    def _roster(self, store: Store, model: str) -> Roster:
        """The enrolled people and the threshold; read again now and then, for the archive grows."""
        now = self._clock()
        known = self._rosters.get(model)
        if known is None or now - known[0] >= ROSTER_SECONDS:
            known = self._rosters[model] = (now, read_roster(store, model))
        return known[1]

    def _end_label(self, error: str | None) -> None:
        assert self._work is not None
        self._say(OperationDone(request=self._work.label.request, error=error))
        self._work = None


def _voices_of(label: Label) -> Filter:
    return Filter(video_id=label.video_id, model=label.model)


def _read(store: Store, label: Label, diarizer: Diarizer) -> Iterator[int]:
    """Feed the diarizer; gives after each page how many windows it held."""
    page: list[StoredPoint] = []
    for point in store.scroll(VOICES, True, _voices_of(label), page=READ_POINTS):
        page.append(point)
        if len(page) == READ_POINTS:
            yield _feed(diarizer, page)
            page = []
    if page:
        yield _feed(diarizer, page)


def _feed(diarizer: Diarizer, page: list[StoredPoint]) -> int:
    starts = np.array([point.payload["start_seconds"] for point in page])
    ends = np.array([point.payload["end_seconds"] for point in page])
    diarizer.add(starts, ends, np.array([point.vectors["voice"] for point in page], np.float32))
    return len(page)


def _cluster(diarizer: Diarizer, found: list[Diarization | Exception]) -> None:
    try:
        found.append(diarizer.finish())
    except Exception as error:  # noqa: BLE001 - a fault of ours: raised again in the consumer's thread
        found.append(error)
