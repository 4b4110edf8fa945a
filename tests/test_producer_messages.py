"""What a decoder says of what it read."""

from hypothesis import given
from hypothesis import strategies as st

from engine.producer_messages import MAX_GAPS, add_gap
from transport.messages import Gap


def gap(start: float, end: float, reason: str = "corrupt: bits") -> Gap:
    return Gap(start_seconds=start, end_seconds=end, reason=reason)


def test_gaps_that_meet_for_one_reason_are_one() -> None:
    gaps: list[Gap] = []
    for each in (gap(1, 2), gap(2, 3), gap(5, 6), gap(6, 7, "no-sound: a hole"), gap(6.5, 8, "no-sound: a hole")):
        add_gap(gaps, each)
    assert gaps == [gap(1, 3), gap(5, 6), gap(6, 8, "no-sound: a hole")]


starts = st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 10), st.sampled_from(["a: b", "c: d"])), max_size=600)


@given(starts)
def test_however_many_gaps_there_are_they_stay_few_and_none_is_lost(found: list[tuple[float, float, str]]) -> None:
    gaps: list[Gap] = []
    for start, seconds, reason in sorted(found):
        add_gap(gaps, gap(start, start + seconds, reason))
        assert any(each.start_seconds <= start and start + seconds <= each.end_seconds for each in gaps)
    assert len(gaps) <= MAX_GAPS
