"""Languages of windows: the rule by itself, in any batches, and in an engine that fails, splits and resumes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.jobs import ItemId
from engine.runner import Failure
from stages.base import SpeechInput
from stages.hearing import Decision, LanguageLog, Note, Place, choose, decide, known, note_all
from stages.options import SpeechOptions
from stages.speech_model import SpeechModel
from tests.conftest import TinyModels
from tests.fakes import LANGUAGES, PolyglotModel, spoken
from tests.test_core import Harness, payloads_of
from tests.whispers import hears, load, said, sound
from transport.messages import Points, TaskKey, TaskResult

SURE, UNSURE = 0.9, 0.3
MARK = 2  # the sample that says that a window cannot be transcribed


@pytest.fixture(scope="module")
def path(tiny_models: TinyModels) -> Path:
    return tiny_models["whisper"]


@pytest.fixture(scope="module")
def model(path: Path) -> SpeechModel:
    return load(path)


class Heard(NamedTuple):
    """A window: which language is likeliest in it, how likely that is, and how much is said in it."""

    language: str
    probability: float
    seconds: float


sounds = st.builds(
    Heard, st.sampled_from(LANGUAGES), st.sampled_from([SURE, UNSURE, 0.5]), st.sampled_from([0.1, 0.7, 1.3, 2.0])
)


def expected(track: Sequence[Heard], failing: frozenset[int] = frozenset()) -> list[str | None]:
    """The rule, word for word; None for windows that fail."""
    seconds: dict[str, float] = {}
    languages: list[str | None] = []
    for number, heard in enumerate(track):
        if number in failing:
            languages.append(None)
        elif heard.probability >= 0.5:
            languages.append(heard.language)
            seconds[heard.language] = seconds.get(heard.language, 0.0) + heard.seconds
        elif seconds:
            most = max(seconds.values())
            languages.append(min(language for language in seconds if seconds[language] == most))
        else:
            languages.append(heard.language)
    return languages


def ranked(heard: Heard) -> list[tuple[str, float]]:
    others = [language for language in LANGUAGES if language != heard.language]
    return [(heard.language, heard.probability), (others[0], 0.05), (others[1], 0.01)]


# --- the rule ---------------------------------------------------------------------------------------------------------


def test_a_window_that_is_sure_is_in_its_own_language() -> None:
    assert choose([("fr", 0.5), ("en", 0.4)], {"en": 1000.0}, 0.5) == Decision("fr", 0.5, True)


def test_a_window_that_is_not_takes_the_one_most_was_heard_in() -> None:
    so_far = {"en": 20.0, "de": 30.0, "fr": 29.0}
    assert choose([("fr", 0.4), ("de", 0.3)], so_far, 0.5) == Decision("de", 0.3, False)
    assert choose([("fr", 0.4)], {"de": 1.0}, 0.5) == Decision("de", 0.0, False)


def test_with_nothing_before_it_a_window_takes_its_likeliest() -> None:
    assert choose([("fr", 0.4), ("de", 0.3)], {}, 0.5) == Decision("fr", 0.4, False)


def test_of_languages_heard_equally_long_the_first_by_name_is_taken() -> None:
    for so_far in ({"fr": 2.0, "de": 2.0}, {"de": 2.0, "fr": 2.0}):
        assert choose([("en", 0.1)], so_far, 0.5).language == "de"


def test_only_windows_that_were_sure_count() -> None:
    log = LanguageLog()
    places = [Place(log, log.add(), seconds) for seconds in (10.0, 3.0, 2.0)]
    windows = [[("fr", 0.4)], [("en", 0.8)], [("de", 0.2)]]
    decisions = decide(list(zip(places, windows, strict=True)), 0.5)
    assert [decision.language for decision in decisions] == ["fr", "en", "en"]
    note_all(places, decisions)
    assert log.before(3) == {"en": 3.0}


def test_a_window_of_no_track_is_heard_by_itself() -> None:
    log = LanguageLog([("de", 9.0)])
    batch = [(None, [("fr", 0.2)]), (Place(log, log.add(), 1.0), [("fr", 0.2)]), (None, [("en", 0.9)])]
    decisions = decide(batch, 0.5)
    assert [decision.language for decision in decisions] == ["fr", "de", "en"]
    note_all([place for place, _ in batch], decisions)
    assert log.before(1) == {"de": 9.0}


def test_languages_without_a_tokenizer_are_passed_over() -> None:
    codes = {"en": 1, "yue": 2}
    assert known([("<|nan|>", 0.6), ("<|yue|>", 0.3), ("<|en|>", 0.1)], codes) == [("yue", 0.3), ("en", 0.1)]
    assert known([("<|nan|>", 1.0)], codes) == [("en", 0.0)]
    assert known([], codes) == [("en", 0.0)]


# --- any batches ------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(sounds, max_size=12), min_size=1, max_size=3), st.data())
def test_languages_do_not_depend_on_how_windows_come_together(tracks: list[list[Heard]], data: st.DataObject) -> None:
    """Windows of several tracks, each in its order, cut into batches anywhere; a batch may be repeated, or turned
    round; what is done may be settled, and a track resumed from that.
    """
    logs = [LanguageLog() for _ in tracks]
    begun = [0] * len(tracks)  # the first window of what `logs` count
    order = data.draw(st.permutations([at for at, track in enumerate(tracks) for _ in track]))
    taken = [0] * len(tracks)
    found: list[list[str]] = [[] for _ in tracks]
    while order:
        size = data.draw(st.integers(1, len(order)))
        batch, order, added = [], order[size:], order[:size]
        for at in added:
            heard = tracks[at][taken[at]]
            batch.append((at, taken[at], Place(logs[at], logs[at].add(), heard.seconds), ranked(heard)))
            taken[at] += 1
        if data.draw(st.booleans()):
            batch.reverse()
        for _ in range(data.draw(st.integers(1, 2))):
            decisions = decide([(place, ranks) for _, _, place, ranks in batch], 0.5)
            note_all([place for _, _, place, _ in batch], decisions)
        for _, (at, _, _, _), decision in sorted(
            (number, each, decision) for each, decision in zip(batch, decisions, strict=True) for number in (each[1],)
        ):
            found[at].append(decision.language)
        at = data.draw(st.integers(0, len(tracks) - 1))
        votes = logs[at].settle(taken[at] - begun[at])
        if data.draw(st.booleans()):
            logs[at], begun[at] = LanguageLog(votes), taken[at]
    assert found == [expected(track) for track in tracks]


@given(st.lists(sounds, max_size=30), st.sets(st.integers(0, 30)))
def test_sums_are_the_same_to_the_last_bit_whatever_was_settled_when(track: list[Heard], cuts: set[int]) -> None:
    whole, cut = LanguageLog(), LanguageLog()
    for number, heard in enumerate(track):
        for log in (whole, cut):
            log.note(log.add(), Note(heard.language, heard.seconds))
        if number in cuts:
            cut.settle(number + 1)
    assert cut.settle(len(track)) == whole.settle(len(track))


def test_what_is_settled_takes_no_memory_for_each_window() -> None:
    log = LanguageLog()
    for _ in range(1000):
        log.note(log.add(), Note("en", 1.0))
    assert log.settle(990) == (("en", 990.0),)
    assert len(log._notes) == 10
    assert log.before(1000) == {"en": 1000.0}


# --- in an engine -----------------------------------------------------------------------------------------------------


class Track:
    """Windows of one heard track, ten seconds apart, on their way through an engine."""

    def __init__(self, number: int, windows: list[Heard]) -> None:
        self.key = TaskKey(number, 0)
        self.windows = [heard._replace(seconds=float(round(heard.seconds) or 1)) for heard in windows]

    def send(self, harness: Harness, number: int, fails: bool = False) -> None:
        heard, start = self.windows[number], 10.0 * number
        end = start + heard.seconds
        pcm = spoken(heard.seconds, heard.language, heard.probability)
        pcm[MARK] = fails
        harness.speech(start, end, ((start, end),), key=self.key, pcm=pcm)

    def item(self, number: int) -> ItemId:
        start = 10.0 * number
        return ItemId(f"video-{self.key.task_id}", "speech", start, start + self.windows[number].seconds)

    def languages(self, points: list[tuple[Points, Any]]) -> dict[int, str]:
        """By window."""
        mine = [(message, array) for message, array in points if message.key == self.key]
        return {int(payload["start_seconds"] // 10): payload["language"] for payload in payloads_of(mine, "speech")}

    def expected(self, failing: frozenset[int] = frozenset()) -> dict[int, str]:
        languages = expected(self.windows, failing)
        return {number: language for number, language in enumerate(languages) if language is not None}


def faults(most: int) -> Any:
    """Memory for so many windows, and no way to transcribe those that are marked."""

    def fault(batch: Sequence[Any]) -> None:
        if len(batch) > most:
            raise RuntimeError("CUDA failed with error out of memory")
        if any(item.pcm[MARK] for item in batch):
            raise ValueError("cannot transcribe")

    return fault


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(sounds, min_size=1, max_size=8), min_size=1, max_size=2),
    st.integers(1, 4),
    st.sets(st.integers(0, 7)),
    st.data(),
)
def test_an_engine_hears_the_same_whatever_fits_and_whatever_fails(
    sound_tracks: list[list[Heard]], most: int, cuts: set[int], data: st.DataObject
) -> None:
    """Batches run out of memory and are halved, windows fail, run alone or are condemned, sections end anywhere."""
    tracks = [Track(number, windows) for number, windows in enumerate(sound_tracks)]
    places = [(at, number) for at, track in enumerate(tracks) for number in range(len(track.windows))]
    some = st.sets(st.sampled_from(places), max_size=3)
    failing, alone, condemned = data.draw(some), data.draw(some), data.draw(some)
    harness = Harness(
        suspects=[tracks[at].item(number) for at, number in alone],
        condemned={tracks[at].item(number): Failure("device-lost", "test") for at, number in condemned},
        speech_model=PolyglotModel(faults(most)),
    )
    for track in tracks:
        harness.start(track.key)
    for number in range(8):
        for at, track in enumerate(tracks):
            if number < len(track.windows):
                track.send(harness, number, (at, number) in failing)
        harness.now += 10.0  # longer than anything waits for company
        for _ in range(data.draw(st.integers(0, 3))):
            harness.engine.step(harness.now)
        if number in cuts:
            for track in tracks:
                harness.checkpoint(sum(each < number for each in cuts), 10.0 * number, track.key)
    for track in tracks:
        harness.end(track.key)
    points, results = harness.run()
    for at, track in enumerate(tracks):
        lost = frozenset(number for each, number in failing | condemned if each == at)
        assert track.languages(points) == track.expected(lost)
        assert languages_of(results, track.key) == seconds_by_language(track, lost)
    assert harness.engine.is_idle()
    assert sum(cost for _, cost in harness.engine.released) == harness.sent_bytes


def test_windows_behind_one_that_must_run_alone_wait_for_what_is_heard_in_it() -> None:
    track = Track(0, [Heard("fr", SURE, 1.0), Heard("de", SURE, 2.0), Heard("en", UNSURE, 1.0)])
    harness = Harness(suspects=[track.item(1)], speech_model=PolyglotModel())
    harness.start(track.key)
    for number in range(3):
        track.send(harness, number)
    harness.end(track.key)
    points, _ = harness.run()
    assert track.languages(points) == {0: "fr", 1: "de", 2: "de"}
    assert harness.models["speech"].batches == [1, 1, 1]


def languages_of(results: list[TaskResult], key: TaskKey) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for result in results:
        for language, more in result.languages if result.key == key else ():
            seconds[language] = seconds.get(language, 0.0) + more
    return seconds


def seconds_by_language(track: Track, failing: frozenset[int] = frozenset()) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for number, language in track.expected(failing).items():
        seconds[language] = seconds.get(language, 0.0) + track.windows[number].seconds
    return seconds


@pytest.mark.parametrize("cut", range(1, 6))
def test_a_track_that_is_resumed_goes_on_with_what_was_heard(cut: int) -> None:
    sounds = [("fr", SURE, 2.0), ("de", SURE, 1.0), ("en", UNSURE, 1.0), ("de", SURE, 2.0), ("en", UNSURE, 1.0),
              ("en", UNSURE, 1.0)]  # fmt: skip
    track = Track(0, [Heard(*each) for each in sounds])
    assert list(track.expected().values()) == ["fr", "de", "fr", "de", "de", "de"]
    first, second = Harness(speech_model=PolyglotModel()), Harness(speech_model=PolyglotModel())
    first.start(track.key)
    for number in range(len(sounds)):
        track.send(first, number)
        if number == cut - 1:
            first.checkpoint(0, 10.0 * cut, track.key)
    before, (result,) = first.run()
    assert result.resume is not None, "what came behind the section is not in it, though it went through one batch"
    second.start(track.key, section=1, languages=result.resume.languages)
    for number in range(cut, len(sounds)):
        track.send(second, number)
    second.end(track.key)
    after, _ = second.run()
    whole = track.expected()
    assert track.languages(before) == whole
    assert track.languages(after) == {number: whole[number] for number in range(cut, len(sounds))}


def test_languages_are_counted_by_seconds_of_speech_that_became_text() -> None:
    harness = Harness(speech_model=PolyglotModel())
    harness.start()
    for start, seconds, language in ((0.0, 4.0, "fr"), (10.0, 0.9, "de"), (20.0, 3.0, "en"), (30.0, 2.0, "fr")):
        spans = ((start, start + seconds / 2), (start + seconds / 2, start + seconds))
        harness.speech(start, start + seconds, spans, pcm=spoken(seconds, language, SURE))
    harness.end()
    _, (result,) = harness.run()
    assert dict(result.languages) == pytest.approx({"fr": 6.0, "en": 3.0}), "no words came of the German"


# --- in the speech model ---------------------------------------------------------------------------------------------


def test_a_window_that_is_not_sure_takes_the_language_of_those_before_it(
    model: SpeechModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, other = LanguageLog(), LanguageLog([("zh", 5.0)])
    places = [Place(log, log.add(), 2.0), Place(other, other.add(), 2.0), Place(log, log.add(), 2.0), None]
    batch = [SpeechInput(sound(2, seed), None, place) for seed, place in enumerate(places)]
    unsure = [("<|es|>", 0.4), ("<|fr|>", 0.3)]
    hears(monkeypatch, model, [("<|fr|>", 0.8)], [("<|de|>", 0.4)], unsure, [("<|it|>", 0.4)])
    transcripts = model.run(batch)
    assert [(t.language, t.language_probability) for t in transcripts] == [
        ("fr", 0.8), ("zh", 0.0), ("fr", 0.3), ("it", 0.4),
    ]  # fmt: skip
    assert (log.before(9), other.before(9)) == ({"fr": 2.0}, {"zh": 5.0})
    assert said(transcripts[1]) == said(model.run([SpeechInput(sound(2, 1), "zh")])[0])


def test_what_was_heard_is_noted_when_the_batch_is_done_and_not_before(
    model: SpeechModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LanguageLog()
    window = SpeechInput(sound(2), None, Place(log, log.add(), 2.0))
    hears(monkeypatch, model, [("<|fr|>", 0.8)])
    with monkeypatch.context() as patch:
        patch.setattr(model, "_align", out_of_memory)
        with pytest.raises(RuntimeError, match="out of memory"):
            model.run([window])
    assert log.before(9) == {}
    model.run([window])
    assert log.before(9) == {"fr": 2.0}


def out_of_memory(*arguments: Any) -> Any:
    raise RuntimeError("CUDA failed with error out of memory")


def test_the_threshold_can_be_set(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(path, options=SpeechOptions(temperatures=(0.0,), language_threshold=0.9))
    window = SpeechInput(sound(2), None, Place(LanguageLog([("zh", 5.0)]), 0, 2.0))
    hears(monkeypatch, model, [("<|fr|>", 0.8)])
    assert model.run([window])[0].language == "zh"


@pytest.mark.parametrize(
    ("ranks", "language"),
    [
        ([("<|nan|>", 0.9), ("<|it|>", 0.1)], "it"),  # a token of some fine-tuned model
        ([("<|yue|>", 0.9)], "en"),  # in faster-whisper's list, and not in this model's tokenizer
        ([("", 1.0)], "en"),
        ([], "en"),
    ],
)
def test_whatever_is_heard_becomes_a_language_that_the_model_can_write(
    model: SpeechModel, monkeypatch: pytest.MonkeyPatch, ranks: list[tuple[str, float]], language: str
) -> None:
    hears(monkeypatch, model, ranks)
    (transcript,) = model.run([SpeechInput(sound(2), None)])
    assert transcript.language == language
    assert transcript.segments


def test_a_set_language_is_not_searched_for_and_counts_for_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(path, options=SpeechOptions(temperatures=(0.0,), language="de-AT"))
    hears(monkeypatch, model)  # nothing, if it were asked
    log = LanguageLog()
    (transcript,) = model.run([SpeechInput(sound(2), None, Place(log, log.add(), 2.0))])
    assert (transcript.language, transcript.language_probability, log.before(9)) == ("de", 1.0, {})
