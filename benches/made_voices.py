"""Voice vectors of made conversations, with the truth beside them: who spoke when is known because it was drawn.

A conversation is drawn turn by turn (`Talk`): who speaks, how long, and whether the next one waits, begins at once or
speaks at the same time. Its speech is cut into windows by `stages.windows.voice_windows`, as in the engine. A window's
vector is the mean of what is said in it, in proportion to time: the speakers' own directions, the state each is in,
which changes from minute to minute, and noise of each half second; then it is brought to unit length. So a window with
a change of speakers is a mixture, windows that share sound share noise, and shorter windows are noisier, without a rule
for any of it.

The scales are set so that 3-s windows of one speaker have cosines of 0.65 ± 0.12, and those of two speakers 0.1 ± 0.1
(tests/test_diarization.py checks it). Everything is drawn from one seed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.options import VoiceOptions
from stages.windows import voice_windows

Floats = npt.NDArray[np.float32]
Spans = Sequence[tuple[float, float]]
Labelled = Sequence[tuple[float, float, int]]  # start, end in seconds, speaker

DIMENSION = 192  # of ECAPA
TICK_SECONDS = 0.5  # noise is drawn for each
PAUSE_SECONDS = 0.5  # at least: shorter silences do not part segments
COMMON, SPEAKER, STATE, NOISE = 0.13, 0.56, 0.05, 0.26  # variances of the parts of a window of 3 s; they add up to 1
NOISE_SPREAD = 0.4  # sigma of the logarithm
DECAY = 0.32  # of the vectors' spread from one dimension to the next


@dataclass(frozen=True)
class Talk:
    """How people talk."""

    turn_seconds: float = 5.0  # median
    turn_spread: float = 0.8  # sigma of the logarithm
    shortest_seconds: float = 1.0
    pause: float = 0.6  # of the changes come after a silence
    overlap: float = 0.05  # of the changes come while the one before still speaks; the others at once
    overlap_seconds: tuple[float, float] = (0.5, 3.0)
    breath_seconds: float = 8.0  # mean time between pauses of one speaker


TALK = Talk()
TALKS = {
    "usual": TALK,
    "overlapping": Talk(12.0, overlap=0.3, overlap_seconds=(3.0, 8.0), breath_seconds=30.0),  # a debate
    "rapid": Talk(2.2, turn_spread=0.5, pause=0.2),  # 70 % of the windows hold a change
}


@dataclass(frozen=True, eq=False)
class MadeVoices:
    """A conversation: the truth, and what the engine would have stored of it."""

    turns: Labelled  # in time order; may overlap
    speech: Spans
    starts: npt.NDArray[np.float64]  # [n] seconds
    ends: npt.NDArray[np.float64]  # [n] seconds
    vectors: Floats  # [n, d] unit length
    speakers: npt.NDArray[np.int32]  # [n] who has most of the window

    @property
    def covered(self) -> Spans:
        """Where there are windows: only there can a diarization know anything."""
        return union(zip(self.starts.tolist(), self.ends.tolist(), strict=True))


def make_voices(
    seconds: float,
    shares: Sequence[float],
    seed: int,
    talk: Talk = TALK,
    options: VoiceOptions | None = None,
) -> MadeVoices:
    """A conversation of `seconds` in which speaker i speaks about `shares[i]` of the time."""
    generator = np.random.default_rng(seed)
    turns = draw_turns(generator, seconds, np.asarray(shares, np.float64), talk)
    speech = union([(start, end) for start, end, _ in turns])
    windows = np.array(voice_windows(speech, options or VoiceOptions())).reshape(-1, 2)
    spoken = [seconds_of(turns, len(shares), edges) for edges in windows.T]
    weights = spoken[1] - spoken[0]
    vectors = draw_vectors(generator, windows, weights)
    return MadeVoices(turns, speech, windows[:, 0], windows[:, 1], vectors, weights.argmax(1).astype(np.int32))


def uneven(speakers: int) -> list[float]:
    """Shares that fall as 1/rank, as in meetings and films, but none below 2 %."""
    shares = 1.0 / np.arange(1, speakers + 1)
    floored = np.maximum(shares / shares.sum(), 0.02)
    return [float(share) for share in floored / floored.sum()]


# --- who speaks when --------------------------------------------------------------------------------------------------


def draw_turns(
    generator: np.random.Generator, seconds: float, shares: npt.NDArray[np.float64], talk: Talk
) -> list[tuple[float, float, int]]:
    """Turns as pieces without pauses, in time order."""
    pieces: list[tuple[float, float, int]] = []
    now, speaker = PAUSE_SECONDS, -1
    while now < seconds - talk.shortest_seconds:
        before, speaker = speaker, _next_speaker(generator, shares, speaker)
        length = float(generator.lognormal(np.log(talk.turn_seconds), talk.turn_spread))
        length = max(talk.shortest_seconds, min(length, seconds - now))
        now += _wait(generator, talk, speaker == before, 0.6 * min(length, _last_seconds(pieces)))
        pieces += _breaths(generator, now, length, speaker, talk)
        now = max(end for _, end, _ in pieces[-3:])
    return sorted(pieces)


def _last_seconds(pieces: list[tuple[float, float, int]]) -> float:
    return pieces[-1][1] - pieces[-1][0] if pieces else 0.0


def _wait(generator: np.random.Generator, talk: Talk, same: bool, longest: float) -> float:
    """From the end of a turn to the next; below 0 where two speak at once."""
    chance, pause = generator.random(), PAUSE_SECONDS + float(generator.exponential(0.7))
    overlap = min(longest, float(generator.uniform(*talk.overlap_seconds)))
    if same or chance < talk.pause:
        return pause
    return -overlap if chance < talk.pause + talk.overlap else 0.0


def _next_speaker(generator: np.random.Generator, shares: npt.NDArray[np.float64], last: int) -> int:
    """Mostly somebody else: a turn ends because another begins."""
    odds = shares / shares.sum()
    if last >= 0 and len(shares) > 1 and generator.random() < 0.8:
        odds = odds * (np.arange(len(shares)) != last)
    return int(generator.choice(len(shares), p=odds / odds.sum()))


def _breaths(
    generator: np.random.Generator, start: float, length: float, speaker: int, talk: Talk
) -> list[tuple[float, float, int]]:
    """A turn of `length` seconds of speech, cut where the speaker pauses."""
    pieces = []
    while length > 0:
        piece = 1.0 + float(generator.exponential(talk.breath_seconds))
        piece = length if length - piece < 1.0 else piece
        pieces.append((start, start + piece, speaker))
        start += piece + PAUSE_SECONDS + float(generator.exponential(0.3))
        length -= piece
    return pieces


def union(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same time without overlaps, in order; what touches becomes one."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


# --- what is heard ----------------------------------------------------------------------------------------------------


def seconds_of(turns: Labelled, speakers: int, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How long each speaker has spoken until each of `times`: [n, speakers]."""
    spoken = np.zeros((len(times), speakers))
    for speaker in range(speakers):
        spans = np.array(union([(start, end) for start, end, who in turns if who == speaker])).reshape(-1, 2)
        if len(spans):
            lengths = np.repeat(np.diff(spans, axis=1).ravel(), 2) * np.tile([0.0, 1.0], len(spans))
            spoken[:, speaker] = np.interp(times, spans.ravel(), np.cumsum(lengths))
    return spoken


def draw_vectors(
    generator: np.random.Generator, windows: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> Floats:
    """Vectors of `windows` [n, 2] in which each speaker speaks for `weights` [n, speakers] seconds."""
    lengths = np.diff(windows, axis=1)
    proportions = weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)
    voices = unit(_draw(generator, weights.shape[1]))
    mean = np.sqrt(SPEAKER) * proportions @ voices + np.sqrt(COMMON) * unit(_draw(generator, 1))
    mean += np.sqrt(STATE) * _states(generator, windows.mean(1), proportions)
    loudness = generator.lognormal(0.0, NOISE_SPREAD, (len(windows), 1))  # of the noise: laughter, music, a whisper
    mean += np.sqrt(NOISE * 3.0) * loudness * _noise(generator, windows) / lengths
    vectors: Floats = unit(mean).astype(np.float32)
    return vectors


def _draw(generator: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Random vectors of mean length 1, most of it in few dimensions, as in real voice vectors."""
    scales = (1.0 + np.arange(DIMENSION)) ** -DECAY
    drawn: npt.NDArray[np.float64] = generator.normal(size=(count, DIMENSION)) * scales / np.linalg.norm(scales)
    return drawn


def _states(
    generator: np.random.Generator, times: npt.NDArray[np.float64], proportions: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """How each speaker sounds at that time: close in neighbouring minutes, other in distant ones."""
    minutes = int(times.max(initial=0.0) // 60) + 2
    total = np.zeros((len(times), DIMENSION))
    for speaker in range(proportions.shape[1]):
        steps = _draw(generator, minutes)
        for minute in range(1, minutes):
            steps[minute] = 0.8 * steps[minute - 1] + 0.6 * steps[minute]
        total += proportions[:, speaker : speaker + 1] * steps[(times // 60).astype(int)]
    return total


def _noise(generator: np.random.Generator, windows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The sum over each window of noise that is drawn anew for each tick, of variance 1 in a second."""
    ticks = int(windows.max(initial=0.0) / TICK_SECONDS) + 2
    sums = np.zeros((ticks + 1, DIMENSION))
    np.cumsum(_draw(generator, ticks) * np.sqrt(TICK_SECONDS), axis=0, out=sums[1:])

    def until(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        whole = (times / TICK_SECONDS).astype(int)
        part = (times / TICK_SECONDS - whole)[:, None]
        summed: npt.NDArray[np.float64] = sums[whole] * (1 - part) + sums[whole + 1] * part
        return summed

    return until(windows[:, 1]) - until(windows[:, 0])


def unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of length 1 each."""
    scaled: npt.NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled
