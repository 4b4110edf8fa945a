"""Whether what a decoder gives can be believed, after it has met something unreadable. Pure."""

# A decoder goes on after an error with whatever lies in its reference frames: smeared pictures that nobody filmed. They
# are refused until the next key frame. Streams that refresh themselves piece by piece (intra refresh) have none; after
# this long they have healed, for encoders renew the whole picture at least every 250 frames (x264's and x265's default).
HEAL_US = 10_000_000


class Health:
    """Remembers damage until a key frame behind it, or for HEAL_US."""

    def __init__(self) -> None:
        self._failed_us: int | None = None
        self._clean = (
            False  # a good picture has been seen; before it, leading pictures of an open GOP are always broken
        )

    def fail(self, time_us: int) -> None:
        """A packet of this time could not be read."""
        self._failed_us = time_us if self._failed_us is None else max(time_us, self._failed_us)

    def admits(self, time_us: int, key: bool, corrupt: bool) -> bool:
        """Whether a decoded picture shows what was filmed."""
        if corrupt:
            if self._clean:
                self.fail(time_us)
            return False
        if self._failed_us is not None and not self._healed(time_us, key):
            return key  # a key frame from before the damage, delayed by reordering, is good but heals nothing
        self._failed_us = None
        self._clean = True
        return True

    def _healed(self, time_us: int, key: bool) -> bool:
        assert self._failed_us is not None
        return time_us - self._failed_us > HEAL_US or (key and time_us > self._failed_us)
