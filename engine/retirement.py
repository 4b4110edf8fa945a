"""When a decoder has done its share: libraries that parse media leak a little with each file, for months. Pure."""

from collections import Counter


class Retirement:
    """Counts the tasks of each decoder. One at a time ends, in order, and is replaced."""

    def __init__(self, limit: int | None) -> None:
        """limit: tasks of one decoder; None: it is never replaced for its age."""
        self._limit = limit
        self._tasks: Counter[bytes] = Counter()  # by identity
        self._retiring: bytes | None = None

    def given(self, identity: bytes) -> None:
        """It was given a task."""
        self._tasks[identity] += 1

    def is_due(self, identity: bytes) -> bool:
        """Whether it is to be told to end, once it has no task."""
        return self._limit is not None and self._tasks[identity] >= self._limit and self._retiring is None

    def begin(self, identity: bytes) -> None:
        """It was told to end."""
        self._retiring = identity

    def is_retiring(self, identity: bytes) -> bool:
        """Whether it was told to end: it gets no further task."""
        return identity == self._retiring

    def forget(self, identity: bytes) -> None:
        """It is gone."""
        self._tasks.pop(identity, None)
        if identity == self._retiring:
            self._retiring = None
