"""Stored points as a transcript: names, times, captions beside transcribed text, JSON and RTTM."""

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.transcript import (
    Segment,
    Speaker,
    SpeakerTurn,
    SpokenWord,
    Transcript,
    as_json,
    clean,
    layers_of,
    names_of,
    rttm,
    segment_of,
    shown_speaker,
    speakers_of,
    turns_of,
    without_repeats,
)

VIDEO = "1a2b3c4d" * 8
NAMES = {1: "Anna", 2: "Speaker 2"}


def phrase(start: float, end: float, text: str, cluster: int | None = None, **more: Any) -> dict[str, Any]:
    """A point of `speech`, its words as long as each other."""
    words = text.split()
    step = (end - start) / max(1, len(words))
    spoken = [
        {"start_seconds": start + index * step, "end_seconds": start + (index + 1) * step, "text": word}
        | ({"cluster": cluster} if cluster is not None else {})
        for index, word in enumerate(words)
    ]
    labels = {"cluster": cluster, "speaker": NAMES.get(cluster), "speaker_score": 0.75} if cluster is not None else {}
    return {
        "start_seconds": start, "end_seconds": end, "text": text, "language": "en", "source": "asr", "words": spoken,
        **labels, **more,
    }  # fmt: skip


def voice(cluster: int, turns: list[list[float]], speaker: str | None = None, **more: Any) -> dict[str, Any]:
    """A point of `speakers`."""
    label = speaker or f"speaker {cluster} of {VIDEO[:8]}"
    seconds = sum(end - start for start, end in turns)
    return {
        "kind": "cluster", "cluster": cluster, "speaker": label, "turns": turns, "seconds": seconds,
        "match_score": None, **more,
    }  # fmt: skip


def segment(start: float, end: float, text: str = "x", source: str = "asr", language: str | None = "en") -> Segment:
    return Segment(start, end, text, language, source, None, None)


def transcript(**parts: Any) -> Transcript:
    empty: dict[str, Any] = {"segments": (), "speakers": (), "turns": (), "duration_seconds": None}
    return Transcript(**{"video_id": VIDEO, "path": "/films/a film.mp4", **empty, **parts})


# --- from points ------------------------------------------------------------------------------------------------------


def test_words_get_the_names_of_their_clusters() -> None:
    point = phrase(1.0, 3.0, "Good morning", 1)
    point["words"][1]["cluster"] = 2
    found = segment_of(point, NAMES, None)
    assert found == Segment(
        1.0, 3.0, "Good morning", "en", "asr", "Anna", 0.75,
        (SpokenWord(1.0, 2.0, "Good", "Anna"), SpokenWord(2.0, 3.0, "morning", "Speaker 2")),
    )  # fmt: skip


def test_without_names_nobody_is_named_anywhere() -> None:
    found = segment_of(phrase(1.0, 3.0, "Good morning", 1), {}, None)
    assert found is not None
    assert (found.speaker, found.speaker_score, {word.speaker for word in found.words}) == (None, None, {None})


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("speaker 3 of 1a2b3c4d", "Speaker 3"),
        ("Anna", "Anna"),
        ("speaker 3 of the house", "speaker 3 of the house"),
        (" Anna \n B\x00. ", "Anna B."),
        ("", None),
        (None, None),
    ],
)
def test_a_voice_without_a_name_is_shown_by_its_number(label: str | None, name: str | None) -> None:
    assert shown_speaker(label) == name


def test_names_are_those_of_the_segments_and_else_of_the_voices() -> None:
    clusters = [voice(1, [], "Old name"), voice(2, []), voice(3, [], "Ben"), {**voice(4, []), "speaker": None}]
    speech = [phrase(0.0, 1.0, "Hi", 1), phrase(1.0, 2.0, "unlabelled")]
    assert names_of(speech, clusters) == {1: "Anna", 2: "Speaker 2", 3: "Ben", 4: "Speaker 4"}


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (-0.5, 2.0, (0.0, 2.0)),
        (5.0, 4.0, (5.0, 5.0)),
        (-2.0, -1.0, (0.0, 0.0)),
        (9.0, 11.0, (9.0, 10.0)),
        (10.0, 11.0, (10.0, 11.0)),
        (12.0, 13.0, (12.0, 13.0)),
    ],
)
def test_impossible_times_are_put_right_and_ends_cut_to_the_medium(
    start: float, end: float, expected: tuple[float, float]
) -> None:
    point = {"start_seconds": start, "end_seconds": end, "text": "a b", "words": [], "source": "captions"}
    found = segment_of(point, {}, 10.0)
    assert found is not None
    assert (found.start_seconds, found.end_seconds) == expected


def test_words_lie_in_order_within_their_segment() -> None:
    times = [(-1.0, 0.5), (0.2, 0.1), (0.4, 9.0), (3.0, 2.0)]
    words = [{"start_seconds": start, "end_seconds": end, "text": "w"} for start, end in times]
    found = segment_of({**phrase(0.0, 2.0, "w w w w"), "words": words}, {}, None)
    assert found is not None
    assert [(word.start_seconds, word.end_seconds) for word in found.words] == [
        (0.0, 0.5), (0.2, 0.2), (0.4, 2.0), (2.0, 2.0),
    ]  # fmt: skip


def test_text_is_one_line_without_control_characters() -> None:
    assert clean(" a\n\n b\t\u2028c\x00\x1b\x7f\x85d\xa0e ") == "a b c d e"
    assert segment_of(phrase(0.0, 1.0, " \n\x00"), {}, None) is None
    found = segment_of(
        {**phrase(0.0, 1.0, "a"), "words": [{"start_seconds": 0, "end_seconds": 1, "text": " "}]}, {}, 9.0
    )
    assert found is not None
    assert found.words == ()


def test_voices_are_listed_by_number() -> None:
    clusters = [voice(2, [[0.0, 1.5]]), voice(1, [[2.0, 3.0]], "Anna", match_score=0.61)]
    assert speakers_of(clusters) == (Speaker("Anna", 1, 1.0, 0.61), Speaker("Speaker 2", 2, 1.5, None))


# --- turns ------------------------------------------------------------------------------------------------------------


def test_turns_are_in_order_and_say_where_two_speak_at_once() -> None:
    clusters = [voice(2, [[2.5, 4.0], [9.0, 9.5]]), voice(1, [[0.0, 3.0], [4.0, 5.0]], "Anna")]
    assert turns_of(clusters) == (
        SpeakerTurn(0.0, 3.0, "Anna", True),
        SpeakerTurn(2.5, 4.0, "Speaker 2", True),
        SpeakerTurn(4.0, 5.0, "Anna", False),
        SpeakerTurn(9.0, 9.5, "Speaker 2", False),
    )


def test_two_voices_of_one_name_have_one_turn_where_they_meet() -> None:
    clusters = [voice(1, [[0.0, 2.0], [5.0, 6.0]], "Anna"), voice(3, [[1.0, 3.0], [3.0, 4.0]], "Anna")]
    assert turns_of(clusters) == (SpeakerTurn(0.0, 4.0, "Anna", False), SpeakerTurn(5.0, 6.0, "Anna", False))


def test_turns_without_length_are_none() -> None:
    clusters = [voice(1, [[1.0, 1.0], [2.0, 2.0004], [4.0, 3.0], [-1.0, -0.5]], "Anna")]
    assert turns_of(clusters) == ()


spans = st.tuples(st.floats(-5, 100), st.floats(0, 10)).map(lambda each: [each[0], each[0] + each[1]])


@given(st.lists(st.tuples(st.sampled_from(["Anna", "Ben", None]), st.lists(spans, max_size=6)), max_size=5))
def test_turns_of_a_speaker_never_touch_and_overlaps_are_marked_as_by_hand(voices: list[Any]) -> None:
    turns = turns_of([voice(number, own, name) for number, (name, own) in enumerate(voices, 1)])
    assert list(turns) == sorted(turns, key=lambda turn: turn.start_seconds)
    for name in {turn.speaker for turn in turns}:
        own = [turn for turn in turns if turn.speaker == name]
        assert all(one.end_seconds < other.start_seconds for one, other in pairwise(own))
    for turn in turns:
        assert 0 <= turn.start_seconds < turn.end_seconds
        others = [other for other in turns if other.speaker != turn.speaker]
        meets = [o for o in others if o.start_seconds < turn.end_seconds and turn.start_seconds < o.end_seconds]
        assert turn.overlap == bool(meets)


# --- captions and transcribed text ------------------------------------------------------------------------------------


def test_what_captions_leave_out_is_transcribed_and_both_belong_together() -> None:
    captions = [segment(0, 4, "one", "captions"), segment(10, 14, "three", "captions")]
    heard = [segment(5, 8, "two"), segment(13.5, 18, "four")]
    layers = layers_of([*heard, *captions], True, None)
    assert [each.text for each in without_repeats(layers)] == ["one", "two", "three", "four"]


def test_where_all_is_there_twice_the_preferred_one_is_taken() -> None:
    captions = [segment(0, 4, "written", "captions"), segment(20, 21, "(music)", "captions")]
    heard = [segment(0.2, 2, "heard"), segment(2, 3.9, "heard, too"), segment(8, 9, "heard alone")]
    both = [*captions, *heard]
    assert [each.text for each in without_repeats(layers_of(both, True, None))] == ["written", "heard alone", "(music)"]
    assert [each.text for each in without_repeats(layers_of(both, False, None))] == [
        "heard", "heard, too", "heard alone", "(music)",
    ]  # fmt: skip


@pytest.mark.parametrize(("wanted", "texts"), [(None, ["ja", "nein", "and"]), ("eng", ["yes", "no", "and"])])
def test_of_captions_in_two_languages_the_wanted_or_the_longer_are_taken(wanted: str | None, texts: list[str]) -> None:
    german = [segment(0, 2, "ja", "captions", "de"), segment(3, 6, "nein", "captions", "de")]
    english = [segment(0, 2, "yes", "captions", "en"), segment(3, 5, "no", "captions", "en")]
    layers = layers_of([*english, *german, segment(8, 9, "and")], True, wanted)
    assert [each.text for each in without_repeats(layers)] == texts


def test_a_caption_that_is_there_twice_is_taken_once() -> None:
    twice = [segment(0, 2, "a", "captions"), segment(0, 2, "a", "captions"), segment(0, 2, "b", "captions")]
    assert [each.text for each in without_repeats(layers_of(twice, True, None))] == ["a", "b"]


def test_text_without_length_is_a_repeat_where_something_is_said() -> None:
    layers = [[segment(1, 2, "a")], [segment(1.5, 1.5, "b"), segment(3, 3, "c")]]
    assert [each.text for each in without_repeats(layers)] == ["a", "c"]


seconds = st.integers(0, 60)


@given(st.lists(st.tuples(seconds, seconds), max_size=6), st.lists(st.tuples(seconds, seconds), max_size=6))
def test_the_first_layer_is_whole_and_the_second_where_half_of_it_is_new(first: list[Any], second: list[Any]) -> None:
    one, two = (
        [segment(min(pair), max(pair) + 1, f"{name}{index}") for index, pair in enumerate(layer)]
        for name, layer in (("a", first), ("b", second))
    )
    texts = {each.text for each in without_repeats([one, two])}
    assert texts >= {each.text for each in one}
    for each in two:
        within = range(round(each.start_seconds), round(each.end_seconds))
        said = sum(any(other.start_seconds <= tick < other.end_seconds for other in one) for tick in within)
        assert (each.text in texts) == (said * 2 < len(within))


# --- formats ----------------------------------------------------------------------------------------------------------


def test_json_holds_all_that_is_known() -> None:
    found = segment_of(phrase(1.0, 2.0, "Hi", 1), NAMES, None)
    assert found is not None
    whole = transcript(
        segments=(found,), duration_seconds=60.5, speakers=(Speaker("Anna", 1, 1.0, 0.6),),
        turns=(SpeakerTurn(1.0, 2.0, "Anna", False),),
    )  # fmt: skip
    assert json.loads(json.dumps(as_json(whole))) == {
        "video_id": VIDEO,
        "path": "/films/a film.mp4",
        "duration_seconds": 60.5,
        "languages": ["en"],
        "segments": [
            {
                "start_seconds": 1.0, "end_seconds": 2.0, "text": "Hi", "language": "en", "source": "asr",
                "speaker": "Anna", "speaker_score": 0.75,
                "words": [{"start_seconds": 1.0, "end_seconds": 2.0, "text": "Hi", "speaker": "Anna"}],
            }
        ],
        "speakers": [{"speaker": "Anna", "cluster": 1, "seconds": 1.0, "match_score": 0.6}],
        "turns": [{"start_seconds": 1.0, "end_seconds": 2.0, "speaker": "Anna", "overlap": False}],
    }  # fmt: skip


def test_the_language_that_is_spoken_longest_comes_first() -> None:
    segments = (segment(0, 1, language="en"), segment(2, 9, language="de"), segment(9, 10, language=None))
    assert transcript(segments=segments).languages == ["de", "en"]


RTTM = re.compile(r"SPEAKER (\S+) 1 (\d+\.\d{3}) (\d+\.\d{3}) <NA> <NA> (\S+) <NA> <NA>\n")


def test_rttm_has_a_line_for_each_turn() -> None:
    turns = (SpeakerTurn(0.0, 3.25, "Anna Maria", True), SpeakerTurn(360000.5, 360001.0, "Speaker 2", False))
    assert list(rttm(transcript(turns=turns))) == [
        "SPEAKER a_film 1 0.000 3.250 <NA> <NA> Anna_Maria <NA> <NA>\n",
        "SPEAKER a_film 1 360000.500 0.500 <NA> <NA> Speaker_2 <NA> <NA>\n",
    ]


def test_a_file_without_a_name_is_called_by_its_id() -> None:
    (line,) = rttm(transcript(path="", turns=(SpeakerTurn(0.0, 1.0, "Anna", False),)))
    assert line.split()[1] == VIDEO


@given(st.lists(st.tuples(st.text(max_size=12), st.lists(spans, max_size=4)), max_size=5), st.text(max_size=12))
def test_rttm_read_back_gives_the_turns(voices: list[Any], stem: str) -> None:
    turns = turns_of([voice(number, own, name) for number, (name, own) in enumerate(voices, 1)])
    lines = list(rttm(transcript(path=f"/films/{stem}.mp4", turns=turns)))
    assert len(lines) == len(turns)
    for line, turn in zip(lines, turns, strict=True):
        found = RTTM.fullmatch(line)
        assert found is not None
        start, length = float(found[2]), float(found[3])
        assert (start, round(start + length, 3)) == (turn.start_seconds, turn.end_seconds)
        assert length > 0
        assert found[4].replace("_", " ").split() == turn.speaker.replace("_", " ").split()
