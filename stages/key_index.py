"""Where key frames lie, as far as the index of a container tells: without reading or decoding a frame."""

from collections.abc import Iterator, Sequence
from typing import Any

import av
import av.container

_BY_CUES = ("matroska",)  # read when it is first sought in; they hold pts
_BY_SAMPLES = ("mov",)  # read with the header; they hold dts, of every frame


def key_seconds(
    container: "av.container.InputContainer", stream: Any, after: Sequence[float], start_seconds: float
) -> tuple[float, ...]:
    """For each of the times `after`, that of the first key frame from there on; in rising order, none twice.

    Seconds of the medium, as the index tells them: nothing may depend on their being right. Empty without an index.
    """
    name = container.format.name
    if not after or not name.startswith((*_BY_CUES, *_BY_SAMPLES)):
        return ()
    if name.startswith(_BY_CUES):
        try:
            container.seek(0, stream=stream)
        except av.FFmpegError:
            return ()
    return tuple(sorted(set(_found(stream, after, start_seconds, name.startswith(_BY_SAMPLES)))))


def _found(stream: Any, after: Sequence[float], start_seconds: float, by_dts: bool) -> Iterator[float]:
    entries = stream.index_entries
    if not len(entries):
        return
    late = pts_lag(stream) if by_dts else 0
    for seconds in after:
        at = entries.search_timestamp(int((seconds + start_seconds) / stream.time_base) - late, backward=False)
        if at >= 0:
            yield float((entries[at].timestamp + late) * stream.time_base) - start_seconds


def pts_lag(stream: Any) -> int:
    """How many ticks pts are behind dts, as for the first frame, where the index holds dts."""
    entries = stream.index_entries
    return max(0, stream.start_time - entries[0].timestamp) if stream.start_time is not None and len(entries) else 0
