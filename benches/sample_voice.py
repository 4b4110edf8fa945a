"""A voice-like sound: vowels and consonants from the letters of a text, in the rhythm and with the melody of speech.

Source-filter synthesis, done by adding harmonics: a glottal pulse train is the sum of all harmonics of the pitch, and
a vocal tract is how loud each of them is (Fant, Acoustic Theory of Speech Production, 1960). It sounds like speech to
a voice detector, and says nothing to anybody else.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]  # [n], mono, SAMPLE_RATE, -1 to 1
Curve = npt.NDArray[np.float64]  # [steps] or [steps, …], one value each STEP_SECONDS

SAMPLE_RATE = 24_000
STEP_SECONDS = 0.005  # between two settings of the vocal tract
SYLLABLE_SECONDS = 0.22  # four to five a second, as people speak
CONSONANT_SECONDS = 0.06
WORD_GAP_SECONDS = 0.03
HIGHEST_HERTZ = 5000.0  # harmonics above add nothing to a voice
BANDWIDTHS_HERTZ = (60.0, 90.0, 150.0, 200.0)
FOURTH_FORMANT_HERTZ = 3500.0
# First three formants of men's vowels, in hertz: Peterson and Barney, JASA 24 (1952), table II.
VOWELS = {
    "a": (730.0, 1090.0, 2440.0),
    "e": (530.0, 1840.0, 2480.0),
    "i": (270.0, 2290.0, 3010.0),
    "o": (570.0, 840.0, 2410.0),
    "u": (300.0, 870.0, 2240.0),
    "y": (390.0, 1990.0, 2550.0),
}
HISSING = frozenset("sfhzxctkpq")  # consonants that are noise; the others only dim the vowel


@dataclass(frozen=True)
class Voice:
    """Who speaks."""

    pitch_hertz: float
    tract: float  # 1 for a man's vocal tract; a shorter one has higher formants


VOICES = (Voice(pitch_hertz=115.0, tract=1.0), Voice(pitch_hertz=205.0, tract=1.16))  # Peterson and Barney's women


@dataclass(frozen=True)
class Syllable:
    """One vowel, and how it begins."""

    vowel: str
    hissing: bool
    ends_word: bool


def syllables(text: str) -> list[Syllable]:
    """The vowel groups of a text's words; a word without a vowel is one syllable."""
    found: list[Syllable] = []
    for word in text.lower().split():
        letters = [letter for letter in word if letter.isalpha()]
        starts = [
            n for n, letter in enumerate(letters) if letter in VOWELS and (n == 0 or letters[n - 1] not in VOWELS)
        ]
        found += [Syllable(letters[n], n > 0 and letters[n - 1] in HISSING, ends_word=n == starts[-1]) for n in starts]
        if letters and not starts:
            found.append(Syllable("e", letters[0] in HISSING, ends_word=True))
    return found


def spoken_seconds(text: str) -> float:
    """How long `say` takes for a text."""
    said = syllables(text)
    return SYLLABLE_SECONDS * len(said) + WORD_GAP_SECONDS * sum(syllable.ends_word for syllable in said)


def say(text: str, voice: Voice, rng: np.random.Generator) -> Samples:
    """The sound of a text, float32 [spoken_seconds(text) * SAMPLE_RATE], at most 0.5 loud."""
    formants, loudness, hiss = _tract(syllables(text), voice)
    steps = len(loudness)
    count = round(spoken_seconds(text) * SAMPLE_RATE)
    at = np.arange(count) / (SAMPLE_RATE * STEP_SECONDS)  # in steps

    def fine(curve: Curve) -> Curve:
        return np.interp(at, np.arange(steps), curve)

    pitch = _melody(steps, voice, rng)
    phase = 2 * np.pi * np.cumsum(fine(pitch)) / SAMPLE_RATE
    sound = np.zeros(count)
    for harmonic in range(1, int(HIGHEST_HERTZ / pitch.max()) + 1):
        sound += fine(loudness * _gain(harmonic * pitch, formants)) * np.sin(harmonic * phase)
    sound /= np.abs(sound).max() + 1e-9
    sound += 0.15 * fine(hiss) * np.diff(rng.standard_normal(count + 1))  # differences: more hiss than rumble
    return np.asarray(0.5 * sound / np.abs(sound).max(), np.float32)


def _tract(said: list[Syllable], voice: Voice) -> tuple[Curve, Curve, Curve]:
    """Formants [steps, 3] in hertz, loudness of the vowels [steps] and of the hiss [steps], 0 to 1."""
    formants, loudness, hiss = [], [], []
    for syllable in said:
        length = SYLLABLE_SECONDS + (WORD_GAP_SECONDS if syllable.ends_word else 0.0)
        seconds = np.arange(round(length / STEP_SECONDS)) * STEP_SECONDS
        begun = np.clip((seconds - CONSONANT_SECONDS / 2) / CONSONANT_SECONDS, 0.0, 1.0)
        fading = np.clip((SYLLABLE_SECONDS - seconds) / 0.05, 0.1, 1.0)
        dimmest = 0.0 if syllable.hissing else 0.25
        loudness.append((dimmest + (1 - dimmest) * begun) * fading)
        hiss.append(float(syllable.hissing) * np.exp(-(((seconds - CONSONANT_SECONDS / 2) / 0.025) ** 2)))
        formants.append(np.tile(np.array(VOWELS[syllable.vowel]) * voice.tract, (len(seconds), 1)))
    return _smooth(np.concatenate(formants)), np.concatenate(loudness), np.concatenate(hiss)


def _smooth(formants: Curve) -> Curve:
    """Tongue and lips take some 50 ms from one vowel to the next."""
    window = np.hanning(13)[1:-1] / np.hanning(13).sum()
    padded = np.pad(formants, ((5, 5), (0, 0)), mode="edge")
    return np.stack([np.convolve(row, window, mode="valid") for row in padded.T], axis=1)


def _melody(steps: int, voice: Voice, rng: np.random.Generator) -> Curve:
    """Pitch in hertz: it falls over a sentence, rises with each phrase, and is never quite steady."""
    seconds = np.arange(steps) * STEP_SECONDS
    falling = 1.15 - 0.3 * seconds / max(seconds[-1], STEP_SECONDS)
    accents = 0.08 * np.sin(2 * np.pi * seconds / 0.9)
    jitter = 0.01 * rng.standard_normal(steps)  # a healthy voice's is about one per cent
    return np.asarray(voice.pitch_hertz * (falling + accents + jitter))


def _gain(hertz: Curve, formants: Curve) -> Curve:
    """How loud a harmonic at `hertz` leaves the mouth: four resonances, and a source that falls by 6 dB an octave."""
    gain = 100.0 / hertz
    fourth = np.full(len(hertz), FOURTH_FORMANT_HERTZ)
    for peak, width in zip((*formants.T, fourth), BANDWIDTHS_HERTZ, strict=True):
        gain = gain * peak**2 / np.hypot(peak**2 - hertz**2, width * hertz)
    return gain
