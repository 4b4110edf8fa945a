"""What is missing or unreadable in a stream, and how far what follows can be believed. Pure."""

MICROSECONDS = 1_000_000

# A decoder goes on after an error with whatever lies in its reference frames: smeared pictures that nobody filmed. They
# are refused until the next key frame. Streams that refresh themselves piece by piece (intra refresh) have none; after
# this long they have healed, for encoders renew the whole picture at least every 250 frames (default of x264 and x265).
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


class Continuity:
    """Notices that packets are missing: nothing else tells of a hole in Matroska or MPEG-TS.

    Frames that come later than anything before would suggest are taken for a loss. `constant_rate`: the container knows
    no pauses; in others a pause, once met, counts as usual.
    """

    def __init__(self, average_fps: float | None, constant_rate: bool) -> None:
        frame_seconds = 1 / average_fps if average_fps else 0.125
        self._usual_us = int(4 * frame_seconds * MICROSECONDS)  # dts to pts in a stream with three B-frames
        self._end_us: int | None = None
        self._constant_rate = constant_rate

    def pause(self, time_us: int, duration_us: int) -> int | None:
        """Take a packet's time; where a loss began, if there was one before it."""
        end_us, reached_us = self._end_us, time_us + duration_us
        if end_us is None or reached_us > end_us:
            self._end_us = reached_us
        if end_us is None or time_us - end_us <= self._usual_us:
            return None  # as nearly all packets are
        late_us = time_us - end_us
        lost = late_us > 4 * self._usual_us
        if not (lost and self._constant_rate):
            self._usual_us = late_us
        return end_us if lost else None
