"""Where speech without end is cut: the real voice detection and the packer over made speech whose words are known."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benches.labels import Interval
from benches.sample_voice import SAMPLE_RATE, VOICES, WORD_GAP_SECONDS, Samples, say
from benches.vad_quality import Scores, forced_cuts, judge_cuts, summary
from stages.options import DecodeOptions, SpeechOptions
from stages.windows import SpeechWindow, read_speech_windows
from tests.audio_factory import info, write_sound

CONSONANTS, VOWELS = "bdgklmnprstvszfh", "aeiou"
SPEECH_SECONDS = 100.0
PAUSE_SECONDS = (0.15, 0.28)  # too short to be a silence for the segmenter: it wants 0.3 s
CLOSURE_SECONDS = (0.05, 0.1)  # of a stop consonant: as silent as a pause, and inside a word
NOISE_LEVEL = 0.003  # of the room: 34 to 44 dB below the loudest of a word
CUT_RANGE_SECONDS = 5.0


class Speaker:
    """Says words that nobody knows, and keeps account of when."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._voice = VOICES[seed % len(VOICES)]
        self._pieces: list[Samples] = []
        self.seconds = 0.0
        self.words: list[Interval] = []
        self.pauses: list[Interval] = []

    def talk(self, until_seconds: float, between_pauses: tuple[float, float]) -> None:
        """Words with pauses after so many seconds of them, drawn anew each time."""
        pause_at = self.seconds + self._rng.uniform(*between_pauses)
        while self.seconds < until_seconds:
            self.words.append(self._add(self._word()))
            if self.seconds >= pause_at:
                self.pauses.append(self._add(silence(self._rng.uniform(*PAUSE_SECONDS))))
                pause_at = self.seconds + self._rng.uniform(*between_pauses)
            else:
                self._add(silence(WORD_GAP_SECONDS))

    def sound(self) -> Samples:
        """All of it, with the noise of the room."""
        spoken = np.concatenate(self._pieces)
        noisy = spoken + NOISE_LEVEL * self._rng.standard_normal(len(spoken))
        return noisy.clip(-1, 1).astype(np.float32)

    def _word(self) -> Samples:
        """Every third word has the closure of a stop in it."""
        parts = [self._said()]
        if self._rng.random() < 1 / 3:
            parts += [silence(self._rng.uniform(*CLOSURE_SECONDS)), self._said()]
        return np.concatenate(parts)

    def _said(self) -> Samples:
        drawn = self._rng.integers
        syllables = [CONSONANTS[drawn(len(CONSONANTS))] + VOWELS[drawn(len(VOWELS))] for _ in range(drawn(1, 4))]
        loudness = np.float32(self._rng.uniform(0.3, 1.0))
        return loudness * say("".join(syllables), self._voice, self._rng)[: -len(silence(WORD_GAP_SECONDS))]

    def _add(self, piece: Samples) -> Interval:
        start, self.seconds = self.seconds, self.seconds + len(piece) / SAMPLE_RATE
        self._pieces.append(piece)
        return start, self.seconds


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def windows_of(speaker: Speaker, directory: Path, options: SpeechOptions) -> list[SpeechWindow]:
    path = write_sound(directory / "speech.wav", [speaker.sound()], rate=SAMPLE_RATE)
    items = read_speech_windows(os.fsencode(path), info(path), DecodeOptions(), options)
    return [item for item in items if isinstance(item, SpeechWindow)]


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("window_seconds", [30.0, 12.0])
def test_windows_are_cut_in_a_pause_where_there_is_one(tmp_path: Path, seed: int, window_seconds: float) -> None:
    speaker = Speaker(seed)
    speaker.talk(SPEECH_SECONDS, between_pauses=(1.0, 6.0))
    windows = windows_of(speaker, tmp_path, SpeechOptions(window_seconds=window_seconds))
    cuts = forced_cuts(windows, window_seconds)
    at_hand = 0
    for cut, start in cuts:
        full = start + window_seconds
        near = [one for one in speaker.pauses if full - CUT_RANGE_SECONDS <= one[0] and one[1] <= full]
        at_hand += bool(near)
        assert full - CUT_RANGE_SECONDS <= cut <= full
        assert not near or any(begin <= cut <= end for begin, end in speaker.pauses), (cut, near)
    assert at_hand >= SPEECH_SECONDS / window_seconds - 2
    assert sum(end - begin for window in windows for begin, end in window.speech) > SPEECH_SECONDS - 1


def test_speech_without_any_pause_is_cut_all_the_same_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    speaker = Speaker(7)
    speaker.talk(SPEECH_SECONDS, between_pauses=(1e6, 2e6))
    windows = windows_of(speaker, tmp_path, SpeechOptions())
    assert len(forced_cuts(windows, 30.0)) == len(windows) - 1 == 3
    assert all(one.end_seconds == other.start_seconds for one, other in pairwise(windows))
    assert windows[-1].end_seconds - windows[0].start_seconds > SPEECH_SECONDS - 1


# --- the bench's own count of cuts ------------------------------------------------------------------------------------


def window(*speech: Interval) -> SpeechWindow:
    return SpeechWindow(speech[0][0], speech[-1][1], speech, np.zeros(0, np.int16))


def test_cuts_are_where_a_full_window_ends_and_the_next_begins() -> None:
    windows = [
        window((0, 26)),
        window((26, 30), (31, 45)),
        window((45, 70.5)),  # the segments before touch this one: their pause was filled with padding
        window((71, 97)),
        window((97, 99)),
    ]
    assert forced_cuts(windows, 30.0) == [(26, 0), (97, 71)]


def test_a_cut_is_avoidable_when_the_labels_know_of_a_silence_in_reach() -> None:
    labelled = [(0.0, 26.0), (26.2, 60.0), (60.1, 90.0)]
    cuts = [(27.0, 0.0), (26.1, 0.0), (57.0, 27.5), (85.0, 57.0)]
    # the first could have been made at 26.1, as the second was; 60.0 to 60.1 is too short for the third
    assert judge_cuts(cuts, labelled, 30.0) == (4, 3, 1)
    assert judge_cuts(cuts, [], 30.0) == (4, 0, 0)
    assert judge_cuts([(27.0, 20.0)], labelled, 8.0) == (1, 1, 1)  # short windows are cut in their second half
    assert judge_cuts([(29.0, 24.5)], labelled, 8.0) == (1, 1, 0)


def test_summary_is_of_all_seconds_together() -> None:
    said = summary([Scores(90.0, 9.0, 0.0, 1.0, 3, 2, 1), Scores(10.0, 0.0, 1.0, 1.0, 1, 0, 0)])
    assert said == (
        "labelled 100.0 s: missed 9.0%, false 2.0%, together 11.0%; unheard 1.0%. Of 4 cuts 2 inside turns, 1 avoidable"
    )
