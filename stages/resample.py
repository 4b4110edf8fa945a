"""Resampling a stream of sound to 16 kHz.

The filter is torchaudio's: a low-pass, the sinc in a Hann window, at the phase of each output sample (J. O. Smith,
"Digital Audio Resampling", ccrma.stanford.edu/~jos/resample). torchaudio itself would bring torch into every decoder:
170 MB and 1.3 s of processor time at each start, for one product of matrices.
"""

import math

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from numpy.lib.stride_tricks import sliding_window_view

from stages.timeline import SAMPLE_RATE, Resampler, Samples

ZERO_CROSSINGS = 6  # of the sinc, on either side; this and the next are torchaudio's defaults
ROLLOFF = 0.99  # the filter ends so far below the lower of both Nyquist frequencies
MAX_KERNEL = 2**21  # 8 MB of filter; the usual rates need 1/30 of it, 44,099 Hz would need 2.8 GB


def make_resampler(rate: int) -> Resampler:
    """The resampler from `rate` to 16 kHz."""
    if rate == SAMPLE_RATE:
        return _Unchanged()
    step_in, step_out = _steps(rate)
    too_large = step_out * step_in > MAX_KERNEL
    return _OddRateResampler(rate) if too_large else StreamingResampler(rate)


def _steps(rate: int) -> tuple[int, int]:
    """After how many samples of input, and how many of output, the filters repeat."""
    common = math.gcd(rate, SAMPLE_RATE)
    return rate // common, SAMPLE_RATE // common


def _kernel(rate: int) -> tuple[npt.NDArray[np.float32], int]:
    """Weights [taps, step_out] of the inputs around a step, for each output sample in it; and how far they reach
    beyond the step on either side, in samples of input.

    Phases are taken in float32, as torchaudio does: then the sound is the same to the last bits, and so are the times
    of windows, which are part of the ids of points.
    """
    step_in, step_out = _steps(rate)
    cutoff = min(step_in, step_out) * ROLLOFF
    width = math.ceil(ZERO_CROSSINGS * step_in / cutoff)
    phases = -np.arange(step_out, dtype=np.float32) / np.float32(step_out)
    inputs = np.arange(-width, width + step_in, dtype=np.float64) / step_in
    crossings = np.clip((inputs[:, None] + phases) * cutoff, -ZERO_CROSSINGS, ZERO_CROSSINGS)
    hann = np.cos(np.pi * crossings / (2 * ZERO_CROSSINGS)) ** 2
    return (np.sinc(crossings) * hann * (cutoff / step_in)).astype(np.float32), width


class StreamingResampler:
    """The resampler for a stream: the pieces put together equal the resampled whole.

    Output i depends on the inputs `width` to its left and right. So each block of samples is taken with a context on
    both sides. All blocks have one length, and so the same result wherever the pieces end.
    """

    def __init__(self, rate: int, block_seconds: float = 1.0) -> None:
        self._step_in, self._step_out = _steps(rate)
        self._kernel, self._width = _kernel(rate)
        context = math.ceil(self._width / self._step_in)  # in steps, as is `block`
        block = math.ceil(rate * block_seconds / self._step_in)
        self._context_in = context * self._step_in
        self._block_in = block * self._step_in
        self._waiting = [np.zeros(self._context_in, np.float32)]  # silence before the beginning
        self._waiting_samples = self._context_in

    def push(self, samples: Samples) -> Samples:
        """What is final with these further samples; often nothing."""
        self._waiting.append(samples)
        self._waiting_samples += len(samples)
        if self._waiting_samples < self._needed:
            return np.zeros(0, np.float32)
        buffer = np.concatenate(self._waiting)
        outputs: list[Samples] = []
        while len(buffer) >= self._needed:
            outputs.append(self._run(buffer[: self._needed]))
            buffer = buffer[self._block_in :]
        self._waiting, self._waiting_samples = [buffer], len(buffer)
        return np.concatenate(outputs)

    def finish(self) -> Samples:
        """The last samples; behind the end the signal counts as silent."""
        left = self._waiting_samples - self._context_in
        blocks = math.ceil(left / self._block_in)
        silence = np.zeros(self._needed + blocks * self._block_in - self._waiting_samples, np.float32)
        return self.push(silence)[: math.ceil(left * self._step_out / self._step_in)]

    def skip(self, samples: int) -> None:
        """Go to where `samples` of input have been pushed, without them: what follows counts them as silence.

        Output that does not depend on them, from a second and the filter's width on, is what it would have been.
        """
        blocks = max(0, samples - self._context_in) // self._block_in
        self._waiting_samples = self._context_in + samples - blocks * self._block_in
        self._waiting = [np.zeros(self._waiting_samples, np.float32)]

    def held_back(self) -> Samples:
        """Input that further output depends on."""
        return np.concatenate(self._waiting)

    @property
    def _needed(self) -> int:
        return self._block_in + 2 * self._context_in

    def _run(self, samples: Samples) -> Samples:
        """A block with its context → the block's output."""
        begin = self._context_in - self._width
        steps = sliding_window_view(samples[begin:], len(self._kernel))[:: self._step_in]
        return (steps[: self._block_in // self._step_in] @ self._kernel).reshape(-1)


class _OddRateResampler:
    """FFmpeg's resampler, which interpolates between filters: for rates with hardly a common divisor with 16 kHz."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)

    def push(self, samples: Samples) -> Samples:
        if not len(samples):
            return samples
        frame = AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = self._rate
        return self._joined(frame)

    def finish(self) -> Samples:
        return self._joined(None)

    def _joined(self, frame: AudioFrame | None) -> Samples:
        pieces = [np.zeros(0, np.float32), *(piece.to_ndarray()[0] for piece in self._resampler.resample(frame))]
        return np.concatenate(pieces)


class _Unchanged:
    """Sound that has 16 kHz already."""

    def push(self, samples: Samples) -> Samples:
        return samples

    def finish(self) -> Samples:
        return np.zeros(0, np.float32)

    def skip(self, samples: int) -> None:
        """Nothing: no sample depends on another."""

    def held_back(self) -> Samples:
        return np.zeros(0, np.float32)
