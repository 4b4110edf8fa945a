"""Notes that count."""

from hypothesis import given
from hypothesis import strategies as st

from engine.notes import DOUBTFUL, RETRIED, counted_note, summed_notes


def test_notes_that_count_the_same_become_one_and_others_stand_once() -> None:
    notes = [
        "dark",
        counted_note(RETRIED, 3),
        "dark",
        counted_note(DOUBTFUL, 1),
        "x: 4",
        counted_note(RETRIED, 2),
        "x: 4",
    ]
    assert summed_notes(notes) == [f"{RETRIED}: 5", f"{DOUBTFUL}: 1", "dark", "x: 4"]


@given(st.lists(st.sampled_from(["a", "b: 2", *(counted_note(RETRIED, n) for n in (1, 2, 40))])), st.integers(0, 9))
def test_sums_of_sums_are_the_sum(notes: list[str], cut: int) -> None:
    assert summed_notes([*summed_notes(notes[:cut]), *summed_notes(notes[cut:])]) == summed_notes(notes)
