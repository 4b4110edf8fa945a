"""The quality bench: its measures on rows made by hand, its table, and one run over media with labels."""

import json
import math
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benches.labelled_index import Stored, as_captions, chosen_models, write_clip
from benches.labels import Labels, Turn, Utterance, read_srt
from benches.measures import (
    Enrolment,
    enrolments,
    excerpt,
    measure_names,
    measure_search,
    measure_turns,
    measure_words,
    questions,
)
from benches.quality import labels_of, main, untrained
from benches.quality_table import table
from benches.sample_video import make_sample, sentences
from benches.scoring import Place
from stages.options import ModelOptions
from tests.audio_factory import tone, write_sound
from tests.conftest import TinyModels

TINY = "tiny-ecapa@0123456789ab (untrained)"
FILM, SHOW = Path("/media/film.mp4"), Path("/media/show.mp4")


def labels(medium: Path, turns: list[Turn], utterances: list[Utterance] | None = None, **more: Any) -> Labels:
    return Labels(medium, tuple(turns), tuple(utterances or ()), **more)


def word(start: float, text: str) -> dict[str, Any]:
    return {"start_seconds": start, "end_seconds": start + 0.2, "text": text}


def voice(medium: Path, cluster: int, *turns: tuple[float, float], name: str | None = None) -> dict[str, Any]:
    facts = {"kind": "cluster", "path": f"/elsewhere/{medium.name}", "cluster": cluster, "turns": [*map(list, turns)]}
    known = {"profile_id": "1"} if name is not None else {}
    return {**facts, "speaker": name or f"speaker {cluster} of 01234567", "model": TINY, **known}


def row_of(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (row,) = (row for row in rows if row["name"] == name)
    return row


# --- words ------------------------------------------------------------------------------------------------------------


def test_words_are_compared_where_they_are_known_and_counted_elsewhere() -> None:
    film = labels(
        FILM,
        [Turn(1, 3, "Ann"), Turn(10, 12, "Bob"), Turn(20, 22, "Ann")],
        [Utterance(1, 3, "Ann", "Good day."), Utterance(20, 22, "Ann", "We'll see")],
    )
    payloads = [
        {"path": "/x/film.mp4", "words": [word(20.5, "see"), word(20.1, "we")]},  # points come in no order
        {
            "path": "/x/film.mp4",
            "words": [word(1.1, "good"), word(1.5, "day"), word(10.3, "nobody"), word(11, "knows")],
        },
        {"path": "/x/show.mp4", "words": [word(1.1, "bad")]},
    ]
    rows = measure_words([film, labels(SHOW, [Turn(0, 5, "Ann")])], Stored(speech=payloads))
    assert [row["name"] for row in rows] == ["film.mp4", "all"]
    film_row = row_of(rows, "film.mp4")
    assert (film_row["labels"], film_row["language"], film_row["elsewhere"]) == ("partial", "en", 2)
    assert (film_row["words"], film_row["deleted"], film_row["substituted"]) == (5, 1, 0)  # good day we will see
    assert row_of(rows, "all")["rate"] == pytest.approx(1 / 5)


def test_words_are_summed_by_language() -> None:
    said = [Utterance(0, 5, "", "un deux")]
    media = [labels(FILM, [], said, language="fr"), labels(SHOW, [], said, language="en")]
    rows = measure_words(media, Stored(speech=[{"path": "film.mp4", "words": [word(1, "un"), word(2, "trois")]}]))
    assert [(row["language"], row["rate"]) for row in rows[2:]] == [("en", 1.0), ("fr", 0.5)]
    assert {row["labels"] for row in rows[:2]} == {"whole"}


# --- turns and names --------------------------------------------------------------------------------------------------


def test_turns_of_stored_voices_are_scored_in_each_file_and_together() -> None:
    film = labels(FILM, [Turn(0, 10, "Ann"), Turn(10, 20, "Bob")])
    show = labels(SHOW, [Turn(0, 20, "Ann"), Turn(15, 20, "Bob")])
    stored = Stored(speakers=[voice(FILM, 1, (0, 10)), voice(FILM, 2, (10, 18)), voice(SHOW, 1, (0, 20))])
    stored.speakers.append({"kind": "profile", "name": "Ann"})
    rows = measure_turns([film, show], stored, collar_seconds=1.0)
    film_row, show_row, total = rows
    assert (film_row["people"], film_row["voices"]) == (2, 2)
    # of the film 1-9 and 11-19 are scored, of which 18-19 is missed; of the show 1-14, 16-19 twice
    assert (film_row["speech_seconds"], film_row["missed_seconds"]) == (16, 1)
    assert (show_row["speech_seconds"], show_row["missed_seconds"]) == (19, 3)
    assert show_row["rate_without_overlap"] == 0.0
    assert show_row["rate_without_collar"] == pytest.approx(5 / 25)
    assert total["rate"] == pytest.approx(4 / 35)


def test_without_voices_all_is_missed_and_without_labels_there_is_nothing() -> None:
    rows = measure_turns([labels(FILM, [Turn(0, 10, "Ann")])], Stored(), collar_seconds=0.0)
    assert [row["rate"] for row in rows] == [1.0, 1.0]
    assert measure_turns([labels(FILM, [])], Stored(), collar_seconds=0.0) == []
    assert measure_names([labels(FILM, [])], Stored(), []) == []


def test_people_are_enrolled_from_the_first_half_of_what_they_say_where_they_say_most() -> None:
    film = labels(
        FILM, [Turn(0, 10, "Ann"), Turn(8, 16, "Bob"), Turn(20, 40, "Bob"), Turn(50, 60, "Bob"), Turn(70, 74, "Ann")]
    )
    show = labels(SHOW, [Turn(5, 35, "Ann"), Turn(40, 60, "Cay"), Turn(70, 75, "Dee"), Turn(80, 85, "Dee")])
    ann, bob = enrolments([film, show])  # Cay has a single turn, Dee too little to say
    assert ann == Enrolment("Ann", SHOW, ((5, 22),))  # half of 34 s: her first turn is Bob's, too
    assert bob == Enrolment("Bob", FILM, ((20, 35),))
    assert ann.seconds == 17


def test_clips_are_no_longer_than_they_need_to_be() -> None:
    film = labels(FILM, [Turn(10 * each, 10 * each + 8, "Ann") for each in range(20)])
    (ann,) = enrolments([film])
    assert ann.intervals == ((0, 8), (10, 18), (20, 24))
    assert ann.seconds == 20


def test_names_of_voices_are_scored_apart_for_the_file_of_the_clip_and_for_others() -> None:
    film = labels(FILM, [Turn(0, 20, "Ann"), Turn(20, 30, "Cay")])
    show = labels(SHOW, [Turn(0, 10, "Ann"), Turn(10, 14, "documentary__unlabelled_")])
    stored = Stored(speakers=[voice(FILM, 1, (0, 24), name="Ann"), voice(FILM, 2, (24, 30)), voice(SHOW, 1, (0, 14))])
    rows = measure_names([film, show], stored, [Enrolment("Ann", FILM, ((0, 5),))])
    film_row = row_of(rows, "film.mp4")
    assert (film_row["right_seconds"], film_row["stranger_seconds"], film_row["misnamed_seconds"]) == (15, 10, 4)
    assert row_of(rows, "show.mp4")["unknown_seconds"] == 10
    assert row_of(rows, "all")["accuracy"] == pytest.approx(15 / 25)
    assert row_of(rows, "all, enrolled from the same file")["accuracy"] == 1.0
    assert row_of(rows, "all, enrolled from another file")["accuracy"] == 0.0


# --- search -----------------------------------------------------------------------------------------------------------


def test_a_question_is_asked_once_and_answered_wherever_it_was_said() -> None:
    film = labels(FILM, [], [Utterance(0, 5, "", "Tear down the fence"), Utterance(5, 9, "", "Hello?")])
    show = labels(SHOW, [], [Utterance(2, 4, "", "HELLO!"), Utterance(6, 9, "", "They tear down the fence again")])
    asked = {each.query: each.answers for each in questions([film, show], lambda each: each.utterances)}
    assert asked["Tear down the fence"] == (Place("film.mp4", 0, 5), Place("show.mp4", 6, 9))
    assert asked["They tear down the fence again"] == (Place("show.mp4", 6, 9),)
    assert asked["Hello?"] == asked["HELLO!"] == (Place("film.mp4", 5, 9), Place("show.mp4", 2, 4))


def test_excerpts_are_from_the_middle_of_texts_that_have_one() -> None:
    assert excerpt("one two three four five six seven") is None
    assert excerpt("one two three four five six seven eight") == "three four five"
    assert excerpt(" ".join(map(str, range(40)))) == " ".join(map(str, range(15, 25)))
    film = labels(
        FILM, [], [Utterance(0, 5, "", "twenty one two three four five six seven"), Utterance(5, 9, "", "no")]
    )
    (question,) = questions([film], lambda each: each.utterances, excerpt)
    assert question.answers == (Place("film.mp4", 0, 5),)  # though "two three four" became a number


def test_shots_of_the_same_are_all_right() -> None:
    deer = [Utterance(0, math.inf, "", "a deer"), Utterance(0, 5, "", "a deer"), Utterance(5, 9, "", "a rock")]
    media = [labels(FILM, [], shots=(deer[0],)), labels(SHOW, [], shots=(deer[1], deer[2]))]
    asked = questions(media, lambda each: each.shots)
    found = {"a deer": [Place("film.mp4", 100, 101)], "a rock": [Place("show.mp4", at, at + 1) for at in (2, 3, 6)]}
    result = measure_search(asked, lambda query, limit: found[query][:limit])
    assert result == {"questions": 2, "recall_at_1": 0.5, "recall_at_5": 1.0, "recall_at_10": 1.0}


# --- files and models -------------------------------------------------------------------------------------------------


def test_labels_become_captions(tmp_path: Path) -> None:
    said = (Utterance(0.5, 61.25, "", "So, go."), Utterance(3599.999, 3661.5, "", "Hello?"))
    (tmp_path / "film.srt").write_text(as_captions([replace(each, speaker="Ann") for each in said]), "utf-8")
    assert read_srt(tmp_path / "film.srt") == said


def test_clips_hold_just_the_stretches_of_sound(tmp_path: Path) -> None:
    sound = np.concatenate([tone(1.0, level=level) for level in (0.1, 0.2, 0.3, 0.4)])
    medium = write_sound(tmp_path / "sound.wav", [sound])
    clip = write_clip(medium, [(0.5, 1.5), (3.0, 9.0)], tmp_path / "clip.wav")
    with wave.open(str(clip)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (1, 16_000, 32_000)
        samples = np.frombuffer(file.readframes(32_000), "<i2") / 32768
    np.testing.assert_allclose(samples, np.concatenate((sound[8_000:24_000], sound[48_000:])), atol=1e-4)


def test_a_model_is_the_one_given_or_the_configured_one_or_a_tiny_one(tiny_models: TinyModels, tmp_path: Path) -> None:
    configured = ModelOptions(image=str(tiny_models["siglip"]), speech="no/such-model", voice="off")
    chosen = chosen_models(configured, {"text": str(tiny_models["clip"]), "image": None}, tiny_models.directory)
    assert Path(chosen.image) == tiny_models["siglip"]
    assert Path(chosen.speech) == tiny_models["whisper"]
    assert (chosen.voice, chosen.text) == ("off", str(tiny_models["clip"]))
    assert Path(chosen.directory).is_absolute()


def test_what_was_given_is_never_replaced(tmp_path: Path) -> None:
    configured = ModelOptions(image="off", voice="off")
    chosen = chosen_models(configured, {"speech": "no/such-model"}, tmp_path)
    assert chosen.speech == "no/such-model"
    assert list(tmp_path.iterdir()) == []


# --- what is printed --------------------------------------------------------------------------------------------------


def test_untrained_models_are_known_by_their_labels() -> None:
    payloads = [{"model": TINY}, {"model": "ecapa@01"}, {"model": TINY}, {}]
    assert labels_of(payloads, "model") == ["ecapa@01", TINY]
    assert untrained(labels_of(payloads, "model")) == [TINY]


def a_result() -> dict[str, Any]:
    words = {"name": "film.mp4", "language": "en", "labels": "whole", "words": 9, "substituted": 1, "deleted": 0}
    words |= {"inserted": 2, "rate": 1 / 3, "elsewhere": 4}
    found = {"points": 5, "questions": 2, "recall_at_1": 0.5, "recall_at_5": 1.0, "recall_at_10": None}
    return {
        "not_indexed": {"bad.mp4": "the file is empty"},
        "words": {"models": ["whisper@01"], "untrained": [], "rows": [words, {"name": "all", "words": 9}]},
        "turns": {
            "models": [TINY],
            "untrained": [TINY],
            "rows": [{"name": "show.mp4", "rate": 0.25}],
            "collar_seconds": 0.25,
        },
        "names": {"models": [], "untrained": [], "rows": [], "enrolled": {}, "refused": {"Ann": "too little speech"}},
        "search": {
            "rows": [{"name": "captions", **found, "untrained": []}, {"name": "frames", **found, "untrained": [TINY]}]
        },
    }


def test_the_table_marks_each_figure_that_means_nothing() -> None:
    lines = table(a_result()).splitlines()
    shown = {line.split("  ")[1]: line for line in lines if line.startswith("  ")}
    assert "33.3%" in shown["film.mp4"]
    assert "25.0%" in shown["show.mp4"]
    marked = [line for line in lines if "means nothing" in line]
    assert [line.split()[0] for line in marked] == ["show.mp4", "frames"]
    assert all(line.endswith(f"means nothing: {TINY}") for line in marked)
    assert "  not enrolled: Ann: too little speech" in lines
    assert lines[0] == "not indexed: bad.mp4: the file is empty"
    assert any(line.endswith("NOTHING OF THIS KIND IS STORED") for line in lines)
    assert shown["captions"].split()[1:] == ["5", "2", "50.0%", "100.0%", "-"]


def test_media_without_labels_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert "holds no labelled media" in capsys.readouterr().err
    assert main([str(tmp_path / "absent")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


# --- a run ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of two made voices with captions and labels, and a file that is none."""
    directory = tmp_path_factory.mktemp("labelled")
    (directory / "labels").mkdir()
    make_sample(directory / "made.mp4", 60.0, captions=False)
    said = sentences(60.0)
    rttm = "".join(
        f"SPEAKER made 1 {each.start_seconds:.3f} {each.end_seconds - each.start_seconds:.3f} <NA> <NA> "
        f"voice-{each.voice} <NA> <NA>\n"
        for each in said
    )
    (directory / "labels" / "made.rttm").write_text(rttm, "utf-8")
    texts = [Utterance(each.start_seconds, each.end_seconds, "", each.text) for each in said]
    (directory / "labels" / "made.srt").write_text(as_captions(texts), "utf-8")
    (directory / "broken.mp4").write_bytes(b"no video")
    (directory / "manifest.json").write_text('{"files": [{"name": "broken.mp4", "content": {"seen": "nothing"}}]}')
    return directory


@pytest.mark.timeout(600)  # two whole runs, two enrolments and three models
def test_a_run_gives_all_figures_and_says_which_mean_something(
    media: Path, tiny_models: TinyModels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[models]\nvoice = "{tiny_models["ecapa"]}"\nimage = "off"\n', "utf-8")
    options = [f"--config={config}", f"--speech={tiny_models['whisper']}", f"--json={tmp_path / 'all.json'}"]
    assert main([str(media), *options]) == 0
    said = capsys.readouterr().out
    result = json.loads((tmp_path / "all.json").read_text("utf-8"))
    assert list(result["not_indexed"]) == ["broken.mp4"]

    words = row_of(result["words"]["rows"], "made.mp4")
    assert words["words"] > 50
    assert words["rate"] > 0.5  # an untrained model's words
    assert result["words"]["untrained"] == result["words"]["models"] != []

    turns = row_of(result["turns"]["rows"], "made.mp4")
    assert turns["people"] == 2
    assert turns["voices"] >= 1
    assert turns["missed_seconds"] < 0.3 * turns["speech_seconds"]
    assert result["turns"]["untrained"] != []

    names = row_of(result["names"]["rows"], "made.mp4")
    assert {*result["names"]["enrolled"], *result["names"]["refused"]} == {"voice-0", "voice-1"}
    assert result["names"]["enrolled"], result["names"]["refused"]
    assert names["enrolled_seconds"] > 10

    captions = row_of(result["search"]["rows"], "captions, by their whole text")
    assert captions["questions"] == captions["points"] == len(sentences(60.0))
    assert (captions["recall_at_1"], captions["untrained"]) == (1.0, [])
    transcripts = row_of(result["search"]["rows"], "transcripts, by their whole text")
    assert transcripts["untrained"] == result["words"]["models"]
    spoken = [row for name in ("words", "turns", "names") for row in result[name]["rows"]]
    assert said.count("means nothing") == len(spoken) + 3  # and the searches in transcripts
