"""Phrases from words: properties over any words, and the cases that the rules are for."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stages.phrases import PHRASE_MAX_SECONDS, TIME_STEP_SECONDS, phrase_span, split_phrases, trim_words
from transport.messages import Word

WINDOW_SECONDS = 30.0


@st.composite
def transcripts(draw: st.DrawFn) -> list[Word]:
    """Words in order, as alignment gives them: each begins where the one before ends, or later; some take no time."""
    steps = st.tuples(
        st.floats(0, 3), st.floats(0, 4), st.sampled_from([" so", " then,", " stop.", " 「はい」。", " eh?"])
    )
    words, now = [], 0.0
    for pause, duration, text in draw(st.lists(steps, max_size=60)):
        words.append(Word(now + pause, now + pause + duration, text))
        now += pause + duration
    return words


def spoken(*durations: float, text: str = " word") -> list[Word]:
    words, now = [], 0.0
    for duration in durations:
        words.append(Word(now, now + duration, text))
        now += duration
    return words


@given(transcripts())
def test_every_word_is_in_one_phrase_in_order(words: list[Word]) -> None:
    phrases = split_phrases(words)
    assert [word for phrase in phrases for word in phrase] == words
    assert all(phrases)


@given(transcripts())
def test_only_a_single_word_lasts_longer_than_the_maximum(words: list[Word]) -> None:
    for phrase in split_phrases(words):
        duration = phrase[-1].end_seconds - phrase[0].start_seconds
        assert duration <= PHRASE_MAX_SECONDS or len(phrase) == 1


@given(transcripts(), st.floats(0.01, 30))
def test_trimmed_words_keep_text_and_order_and_lie_in_the_window(words: list[Word], window_seconds: float) -> None:
    trimmed = trim_words(words, window_seconds)
    assert [word.text for word in trimmed] == [word.text for word in words]
    assert all(0 <= word.start_seconds <= word.end_seconds <= window_seconds for word in trimmed)
    assert all(a.start_seconds <= b.start_seconds for a, b in pairwise(trimmed))


@given(transcripts())
def test_no_phrase_of_trimmed_words_lasts_longer_than_the_maximum(words: list[Word]) -> None:
    for phrase in split_phrases(trim_words(words, 1000.0)):
        assert phrase[-1].end_seconds - phrase[0].start_seconds <= PHRASE_MAX_SECONDS


@given(transcripts().filter(bool), st.floats(0.0001, 30))
def test_a_span_has_a_length_and_lies_in_the_window(words: list[Word], window_seconds: float) -> None:
    start, end = phrase_span(trim_words(words, window_seconds), window_seconds)
    assert 0 <= start < end <= window_seconds


def test_a_sentence_ends_a_phrase_that_is_long_enough() -> None:
    words = [Word(0, 1.5, " First"), Word(1.5, 2.5, " ends."), Word(2.5, 4, " Second.")]
    assert [len(phrase) for phrase in split_phrases(words)] == [2, 1]


def test_an_abbreviation_does_not_end_a_short_phrase() -> None:
    words = [Word(0, 0.3, " Mr."), Word(0.3, 0.8, " Smith"), Word(0.8, 1.2, " left.")]
    assert split_phrases(words) == [words]


def test_a_sentence_may_end_inside_quotation_marks() -> None:
    words = [Word(0, 2.5, " “Go!”"), Word(2.5, 3, " she"), Word(3, 3.5, " said.")]
    assert [len(phrase) for phrase in split_phrases(words)] == [1, 2]


def test_a_pause_ends_a_phrase() -> None:
    words = [Word(0, 0.5, " so"), Word(1.6, 2, " then")]
    assert [len(phrase) for phrase in split_phrases(words)] == [1, 1]


def test_a_full_phrase_is_cut_behind_its_last_clause() -> None:
    words = spoken(*[1.0] * 14)
    words[9] = Word(9, 10, " word,")
    assert [len(phrase) for phrase in split_phrases(words)] == [10, 4]


def test_a_full_phrase_without_clauses_is_cut_where_it_is_full() -> None:
    assert [len(phrase) for phrase in split_phrases(spoken(*[1.0] * 14))] == [12, 2]


def test_a_pause_is_taken_out_of_the_first_word() -> None:
    first, *_ = trim_words(spoken(5.0, 0.3, 0.3, 0.3), WINDOW_SECONDS)
    assert (round(first.start_seconds, 3), first.end_seconds) == (4.4, 5.0)


def test_a_pause_is_taken_out_of_the_last_word() -> None:
    *_, last = trim_words(spoken(0.3, 0.3, 0.3, 5.0), WINDOW_SECONDS)
    assert (last.start_seconds, round(last.end_seconds - last.start_seconds, 3)) == (last.start_seconds, 0.6)


def test_a_long_word_inside_a_sentence_stays() -> None:
    words = spoken(0.3, 2.0, 0.3)
    assert trim_words(words, WINDOW_SECONDS) == words


def test_no_word_lasts_for_ever() -> None:
    _, long, _ = trim_words(spoken(0.3, 16.0, 0.3), WINDOW_SECONDS)
    assert (long.start_seconds, round(long.end_seconds, 3)) == (0.3, 0.9)


def test_words_without_time_get_a_span() -> None:
    start, end = phrase_span([Word(30.0, 30.0, " end")], WINDOW_SECONDS)
    assert (start, end) == (30.0 - TIME_STEP_SECONDS, 30.0)


def test_nothing_said_is_no_phrase() -> None:
    assert split_phrases(trim_words([], WINDOW_SECONDS)) == []
