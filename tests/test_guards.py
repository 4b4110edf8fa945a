"""Which text of a window is kept, and which windows are decoded again: by hand, and against the rule in any order."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.base import SpeechInput, Transcript
from stages.guards import Doubt, Guards, Reading, Verdict
from stages.lanes import Lanes
from stages.options import SpeechOptions
from stages.speech_model import SpeechModel
from tests.conftest import TinyModels
from tests.whispers import load, said, scripted, sound

GUARDS = Guards(SpeechOptions())


def reading(logprob: float = -0.3, ratio: float = 1.5, no_speech: float = 0.1, temperature: float = 0.0) -> Reading:
    return Reading([7, 8], logprob, no_speech, ratio, temperature)


GOOD = reading()
REPETITIVE = reading(ratio=2.5)
IMPROBABLE = reading(-1.1)
BOTH = reading(-1.1, 2.5)
SILENT = reading(-1.1, no_speech=0.7)


@pytest.mark.parametrize(
    ("one", "doubts", "is_silence"),
    [
        (GOOD, (), False),
        (REPETITIVE, ("repetitive",), False),
        (IMPROBABLE, ("improbable",), False),
        (BOTH, ("repetitive", "improbable"), False),
        (SILENT, ("improbable",), True),
        (reading(no_speech=0.99), (), False),  # the text is believed in: somebody speaks
        (reading(-1.0, 2.4, 0.6), (), False),  # the thresholds themselves are passed
    ],
)
def test_readings_are_held_against_whispers_thresholds(one: Reading, doubts: tuple[str, ...], is_silence: bool) -> None:
    assert (GUARDS.doubts(one), GUARDS.is_silence(one)) == (doubts, is_silence)
    assert GUARDS.is_final(one) == (is_silence or not doubts)


def test_thresholds_can_be_set() -> None:
    options = SpeechOptions(compression_ratio_threshold=3.0, log_prob_threshold=-2.0, no_speech_threshold=0.05)
    guards = Guards(options)
    assert guards.doubts(BOTH) == ()
    assert guards.doubts(reading(-2.1, 3.1)) == ("repetitive", "improbable")
    assert guards.is_silence(reading(-2.1))


@pytest.mark.parametrize(
    ("tries", "kept", "doubts"),
    [
        ([GOOD], 0, ()),
        ([REPETITIVE, IMPROBABLE, reading(-0.5, temperature=0.4)], 2, ()),
        ([reading(-1.3), BOTH, reading(-1.2, temperature=0.4)], 2, ("improbable",)),
        ([reading(-0.1, 9.0), reading(-1.9), reading(-1.5, 2.5)], 1, ("improbable",)),
        ([reading(-0.2, 9.0), reading(-0.9, 3.0), reading(-0.1, 4.0)], 1, ("repetitive",)),
        ([reading(-1.2, 9.0), reading(-1.9, 3.0)], 1, ("repetitive", "improbable")),
        ([IMPROBABLE, reading(-1.1, temperature=0.2)], 0, ("improbable",)),  # of equals, the less random
    ],
)
def test_the_best_reading_of_a_window_is_kept(tries: list[Reading], kept: int, doubts: tuple[Doubt, ...]) -> None:
    assert GUARDS.choose(tries) == Verdict(tries[kept], len(tries) - 1, doubts, False)


def test_silence_ends_the_search_and_is_not_doubtful() -> None:
    assert GUARDS.choose([reading(-0.2, 9.0, 0.9), SILENT]) == Verdict(SILENT, 1, (), True)


def test_windows_that_fail_go_on_together_and_only_they() -> None:
    """Five windows: good at once, good at 0.2, silent at once, good at 0.4, never good."""
    scripts = [
        [GOOD],
        [REPETITIVE, reading(-0.4, temperature=0.2)],
        [SILENT],
        [IMPROBABLE, REPETITIVE, reading(-0.9, temperature=0.4)],
        [reading(-1.5), reading(-1.4, temperature=0.2), reading(-1.6), *[BOTH] * 3],
    ]
    asked: list[tuple[float, list[int]]] = []

    def again(some: list[int], temperature: float) -> list[Reading]:
        asked.append((temperature, some))
        turn = len(asked)
        return [scripts[index][turn] for index in some]

    verdicts = GUARDS.settle([script[0] for script in scripts], again)
    assert asked == [(0.2, [1, 3, 4]), (0.4, [3, 4]), (0.6, [4]), (0.8, [4]), (1.0, [4])]
    assert [verdict.retries for verdict in verdicts] == [0, 1, 0, 2, 5]
    assert [verdict.reading.temperature for verdict in verdicts] == [0.0, 0.2, 0.0, 0.4, 0.2]
    assert [verdict.is_silence for verdict in verdicts] == [False, False, True, False, False]
    assert [verdict.doubts for verdict in verdicts] == [(), (), (), (), ("improbable",)]


def test_with_one_temperature_nothing_is_decoded_again() -> None:
    def again(some: list[int], temperature: float) -> list[Reading]:
        raise AssertionError(f"decoded again at {temperature}")

    (verdict,) = Guards(SpeechOptions(temperatures=(0.0,))).settle([BOTH], again)
    assert verdict == Verdict(BOTH, 0, ("repetitive", "improbable"), False)


readings = st.builds(reading, st.floats(-3, 0), st.floats(0, 5), st.floats(0, 1))


@given(st.lists(st.lists(readings, min_size=6, max_size=6), max_size=8))
def test_a_window_gets_the_same_verdict_in_any_company(scripts: list[list[Reading]]) -> None:
    def settle(some: list[list[Reading]]) -> list[Verdict]:
        turns = iter(range(1, 6))

        def again(windows: list[int], temperature: float) -> list[Reading]:
            turn = next(turns)
            assert temperature == GUARDS.temperatures[turn]
            assert windows == sorted(set(windows))
            return [some[index][turn] for index in windows]

        return GUARDS.settle([script[0] for script in some], again)

    together = settle(scripts)
    assert together == [settle([script])[0] for script in scripts]
    for script, verdict in zip(scripts, together, strict=True):
        tries = script[: verdict.retries + 1]
        assert not any(GUARDS.is_final(each) for each in tries[:-1])
        assert GUARDS.is_final(tries[-1]) or verdict.retries == 5
        if verdict.doubts:
            good = [each for each in tries if "repetitive" not in GUARDS.doubts(each)]
            assert all(each.average_logprob <= verdict.reading.average_logprob for each in good)
            assert all(each.compression_ratio >= verdict.reading.compression_ratio for each in tries if not good)


# --- in the speech model ---------------------------------------------------------------------------------------------

SAID_WELL, SAID_BADLY = (-0.4, "the quick brown fox"), (-1.4, "jumped over a lazy dog")
SAID_AGAIN = (-0.2, "on and on " * 12)


@pytest.fixture(scope="module")
def path(tiny_models: TinyModels) -> Path:
    return tiny_models["whisper"]


@pytest.fixture(scope="module")
def guarded(path: Path) -> SpeechModel:
    return load(path, options=SpeechOptions(beam_size=2), lanes=Lanes(1))  # the script is for one caller


def text_of(transcript: Transcript) -> str:
    return " ".join(segment.text for segment in transcript.segments)


def test_windows_that_fail_are_decoded_again_together_from_what_was_encoded(
    guarded: SpeechModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = scripted(
        guarded,
        monkeypatch,
        [SAID_BADLY, SAID_AGAIN, (-0.9, "third time lucky")],
        [SAID_WELL],
        [SAID_AGAIN, SAID_WELL],
        [(-1.1, "thank you for watching", 0.9)],
        [(-1.6, "one"), (-1.5, "two"), (-1.2, "three"), (-1.3, "four"), (-0.1, "five " * 40), (-1.2, "six")],
    )
    transcripts = guarded.run([SpeechInput(sound(3, seed), "en") for seed in range(5)])
    sample = {"beam_size": 1, "sampling_topk": 0}
    assert engine.turns == [
        ([0, 1, 2, 3, 4], {"beam_size": 2}),
        ([0, 2, 4], {**sample, "sampling_temperature": 0.2}),
        ([0, 4], {**sample, "sampling_temperature": 0.4}),
        *(([4], {**sample, "sampling_temperature": temperature}) for temperature in (0.6, 0.8, 1.0)),
    ]
    assert engine.encoded == len(transcripts), "none is encoded twice"
    assert [text_of(transcript) for transcript in transcripts] == [
        "third time lucky", "the quick brown fox", "the quick brown fox", "", "three",
    ]  # fmt: skip
    assert [(t.temperature, t.retries, t.doubts, t.is_silence) for t in transcripts] == [
        (0.4, 2, (), False), (0.0, 0, (), False), (0.2, 1, (), False), (0.0, 0, (), True),
        (0.4, 5, ("improbable",), False),
    ]  # fmt: skip
    assert transcripts[4].segments[0].average_logprob == pytest.approx(-1.2)


def test_text_that_repeats_itself_at_every_temperature_is_kept_and_marked(
    guarded: SpeechModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(guarded, monkeypatch, [SAID_AGAIN, (-0.3, "la " * 60), *[(-1.5, "so " * 70)] * 4])
    (transcript,) = guarded.run([SpeechInput(sound(20), "en")])
    assert text_of(transcript).startswith("on and on"), "the least repetitive"
    assert (transcript.doubts, transcript.retries) == (("repetitive",), 5)
    ratio = transcript.segments[0].compression_ratio
    assert ratio > 2.4
    assert {segment.compression_ratio for segment in transcript.segments} == {ratio}


def test_an_untrained_model_runs_through_the_temperatures(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(path, options=SpeechOptions(log_prob_threshold=-0.5))
    batch = [SpeechInput(sound(seconds, seed), "en") for seed, seconds in enumerate((3, 30, 9))]
    transcripts = model.run(batch)
    assert [transcript.retries for transcript in transcripts] == [5, 5, 5]
    assert all(transcript.doubts == ("improbable",) and transcript.segments for transcript in transcripts)
    once = load(path).run(batch)
    for many, one in zip(transcripts, once, strict=True):
        assert many.segments[0].average_logprob >= one.segments[0].average_logprob - 1e-6, "the best of all is kept"
        assert (many.temperature == 0.0) <= (said(many) == said(one))
