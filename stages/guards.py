"""Guards against what Whisper makes up: text that repeats itself, that it does not believe in, or where nobody speaks.

Thresholds and fall-back are those of Whisper itself (https://arxiv.org/abs/2212.04356, section 4.5): what fails is
decoded again at the next temperature. There each window is on its own; here the windows of a batch that fail go on
together, as a smaller batch. Pure: who decodes is passed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from stages.options import SpeechOptions

Doubt = Literal["repetitive", "improbable"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What the decoder said of one window at one temperature."""

    tokens: list[int]  # text alone
    average_logprob: float
    no_speech_probability: float
    compression_ratio: float
    temperature: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The reading of a window that is kept."""

    reading: Reading
    retries: int  # how often the window was decoded again
    doubts: tuple[Doubt, ...]  # what is wrong with it all the same
    is_silence: bool  # nobody speaks: its text is made up


Again = Callable[[list[int], float], Sequence[Reading]]  # windows by their place in the batch, and a temperature


class Guards:
    """The thresholds of one configuration."""

    def __init__(self, options: SpeechOptions) -> None:
        self.temperatures = options.temperatures
        self._longest_ratio = options.compression_ratio_threshold
        self._least_logprob = options.log_prob_threshold
        self._most_no_speech = options.no_speech_threshold

    def settle(self, first: Sequence[Reading], again: Again) -> list[Verdict]:
        """A verdict on each window of a batch. first: its readings at the first temperature; again: decodes some of its
        windows at a further one, in the order given, and is asked only for windows that need it.
        """
        readings = [[reading] for reading in first]
        for temperature in self.temperatures[1:]:
            rest = [index for index, tries in enumerate(readings) if not self.is_final(tries[-1])]
            if not rest:
                break
            for index, reading in zip(rest, again(rest, temperature), strict=True):
                readings[index].append(reading)
        return [self.choose(tries) for tries in readings]

    def choose(self, tries: Sequence[Reading]) -> Verdict:
        """Of all readings of one window: the first that is final; else the likeliest of those that are not repetitive;
        else the least repetitive. Of equals, the one at the lower temperature.
        """
        final = [reading for reading in tries if self.is_final(reading)]
        varied = [reading for reading in tries if "repetitive" not in self.doubts(reading)]
        if final:
            best = final[0]
        elif varied:
            best = max(varied, key=lambda reading: reading.average_logprob)
        else:
            best = min(tries, key=lambda reading: reading.compression_ratio)
        is_silence = self.is_silence(best)
        return Verdict(best, len(tries) - 1, () if is_silence else self.doubts(best), is_silence)

    def is_final(self, reading: Reading) -> bool:
        """Whether nothing is gained by decoding again."""
        return self.is_silence(reading) or not self.doubts(reading)

    def is_silence(self, reading: Reading) -> bool:
        """Whether nobody speaks: the model says so, and does not believe in its text either."""
        return reading.no_speech_probability > self._most_no_speech and reading.average_logprob < self._least_logprob

    def doubts(self, reading: Reading) -> tuple[Doubt, ...]:
        """What is wrong with a text."""
        doubts: list[Doubt] = []
        if reading.compression_ratio > self._longest_ratio:
            doubts.append("repetitive")
        if reading.average_logprob < self._least_logprob:
            doubts.append("improbable")
        return tuple(doubts)
