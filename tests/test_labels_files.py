"""Label files: turns, utterances, what of them can be scored, and what is said of damaged ones."""

import json
import math
from pathlib import Path

import pytest

from benches.labels import Labels, LabelsError, Turn, Utterance, covered, labelled_media, read_rttm, read_srt, without

RTTM = """;; a comment
SPKR-INFO film 1 <NA> <NA> <NA> adult_female Ann <NA>
SPEAKER film 1 4.500 1.250 <NA> <NA> Bob <NA> <NA>

SPEAKER film 1 0.500 4.000 <NA> <NA> Ann <NA>
"""
SRT = """\ufeff1
00:00:04,500 --> 00:00:05,750
[Bob] So, go.

2
00:00:00.500 --> 00:00:04.500 X1:40
[Ann Mary Lee] I said:
no [really].

3
01:00:00,000 --> 01:00:01,000
without a name

4
00:00:09,000 --> 00:00:09,500

"""


def utterance(start: float, end: float, text: str = "words") -> Utterance:
    return Utterance(start, end, "Ann", text)


def test_turns_are_read_in_the_order_of_time(tmp_path: Path) -> None:
    (tmp_path / "film.rttm").write_text(RTTM, "utf-8")
    assert read_rttm(tmp_path / "film.rttm") == (Turn(0.5, 4.5, "Ann"), Turn(4.5, 5.75, "Bob"))


@pytest.mark.parametrize(
    "line",
    [
        "SPEAKER film 1 zero 1.0 <NA> <NA> Ann <NA>",
        "SPEAKER film 1 1.0 -0.5 <NA> <NA> Ann <NA>",
        "SPEAKER film 1 nan 1.0 <NA> <NA> Ann <NA>",
        "SPEAKER film 1 1.0",
    ],
)
def test_a_bad_turn_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "film.rttm"
    path.write_text(f"{RTTM}{line}\n", "utf-8")
    with pytest.raises(LabelsError, match=r"film\.rttm line 6: not a turn: SPEAKER film"):
        read_rttm(path)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_utterances_are_read_with_their_speakers(tmp_path: Path, ends: str) -> None:
    (tmp_path / "film.srt").write_bytes(SRT.replace("\n", ends).encode())
    assert read_srt(tmp_path / "film.srt") == (
        Utterance(0.5, 4.5, "Ann_Mary_Lee", "I said: no [really]."),
        Utterance(4.5, 5.75, "Bob", "So, go."),
        Utterance(3600.0, 3601.0, "", "without a name"),
    )


def test_a_cue_without_times_is_named(tmp_path: Path) -> None:
    path = tmp_path / "film.srt"
    path.write_text(f"{SRT}\n\n5\n[Ann] when?\n", "utf-8")
    with pytest.raises(LabelsError, match=r"film\.srt: a cue without times: 5 / \[Ann\] when\?"):
        read_srt(path)


def test_labels_are_found_by_the_name_of_the_medium(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for name in ("b film.mkv", "a.mp4", "none.mp4", "c.mp4"):
        (tmp_path / name).touch()
    shots = [{"start": 0, "end": 5.5, "seen": "a deer"}, {"start": 5.5, "end": 9, "seen": "a rock"}]
    contents = {
        "a.mp4": {"speech": {"language": "fr (presumed)"}, "shots": shots, "seen": "a deer and a rock"},
        "c.mp4": {"speech": {}, "seen": "a cockatoo"},
        "none.mp4": {"speech": {"language": "en"}},
        "absent.mp4": {"seen": "a file that is not there"},
    }
    files = [{"name": name, "content": content} for name, content in contents.items()]
    (tmp_path / "manifest.json").write_text(json.dumps({"files": files}), "utf-8")
    (tmp_path / "labels" / "a.srt").write_text(SRT, "utf-8")
    (tmp_path / "labels" / "b film.rttm").write_text(RTTM, "utf-8")
    (tmp_path / "labels" / "b film.second-opinion.rttm").write_text(RTTM, "utf-8")
    first, second, third = labelled_media(tmp_path)
    assert (first.medium.name, first.language, len(first.turns), len(first.utterances)) == ("a.mp4", "fr", 0, 3)
    assert first.shots == (Utterance(0, 5.5, "", "a deer"), Utterance(5.5, 9, "", "a rock"))
    assert (second.medium.name, second.language) == ("b film.mkv", "en")
    assert (len(second.turns), len(second.utterances), len(second.shots)) == (2, 0, 0)
    assert third.shots == (Utterance(0, math.inf, "", "a cockatoo"),)


def test_a_manifest_that_is_none_is_named(tmp_path: Path) -> None:
    for text in ("no JSON", "{}"):
        (tmp_path / "manifest.json").write_text(text, "utf-8")
        with pytest.raises(LabelsError, match=r"manifest\.json: not JSON of the form"):
            labelled_media(tmp_path)


def test_media_without_labels_and_without_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").touch()
    assert labelled_media(tmp_path) == []


# --- what can be scored -----------------------------------------------------------------------------------------------


def labels(turns: list[Turn], utterances: list[Utterance] | None = None) -> Labels:
    return Labels(Path("film.mp4"), tuple(turns), tuple(utterances or ()))


def test_text_is_partial_when_a_turn_has_no_words() -> None:
    turns = [Turn(0, 10, "Ann"), Turn(20, 30, "Bob")]
    assert not labels(turns, [utterance(0, 10), utterance(21, 29)]).text_is_partial
    assert labels(turns, [utterance(0, 10)]).text_is_partial
    assert covered(turns[0], [utterance(5, 20)])
    assert not covered(turns[0], [utterance(5.1, 20)])


def test_nobody_in_particular_is_not_scored_and_neither_is_what_follows_the_last_turn() -> None:
    each = labels([Turn(2, 10, "Ann"), Turn(10, 15, "two_women__unlabelled_"), Turn(16, 20, "Ann")])
    assert each.scored == ((0.0, 10.0), (15.0, 20.0))
    assert [turn.speaker for turn in each.named_turns] == ["Ann", "Ann"]
    assert labels([]).scored == ()


def test_utterances_that_follow_each_other_are_scored_together() -> None:
    each = labels([], [utterance(1, 5, "a b"), utterance(5.5, 9, "c"), utterance(12, 14, "d")])
    assert [(text.start_seconds, text.end_seconds, text.text) for text in each.texts()] == [
        (0.5, 9.5, "a b c"),
        (11.5, 14.5, "d"),
    ]


def test_scored_stretches_stay_clear_of_each_other_and_of_turns_without_words() -> None:
    turns = [Turn(4.25, 6, "Bob"), Turn(10.25, 10.75, "Bob")]
    each = labels(turns, [utterance(0.25, 4), utterance(8, 10), utterance(10.9, 12)])
    spans = [(text.start_seconds, text.end_seconds) for text in each.texts()]
    assert spans == [(0.0, 4.25), (7.5, 10.25), (10.75, 12.5)]  # 10 and 10.9 are close, but Bob speaks in between


def test_overlapping_utterances_are_one_stretch() -> None:
    each = labels([], [utterance(0, 10, "a"), utterance(2, 4, "b"), utterance(10.8, 12, "c")])
    assert [text.text for text in each.texts()] == ["a b c"]


def test_holes_are_cut_out_of_intervals() -> None:
    assert without([(0, 10), (20, 30)], [(8, 22), (25, 26), (40, 50)]) == ((0, 8), (22, 25), (26, 30))
    assert without([(0, 10)], [(0, 10)]) == ()
