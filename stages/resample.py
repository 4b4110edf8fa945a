"""Resampling a stream of sound to 16 kHz."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import av
import numpy as np
from av.audio.frame import AudioFrame

from stages.timeline import SAMPLE_RATE, Resampler, Samples
from stages.torchaudio_shim import import_torchaudio

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


class StreamingResampler:
    """torchaudio's Resample for a stream: the pieces put together equal the resampled whole.

    Output i depends on the inputs `width` to its left and right. So each call of Resample gets, besides the new
    samples, a context on both sides; outputs near its edges are not used, but computed again with the next block.
    """

    def __init__(self, rate: int, block_samples: int | None = None) -> None:
        self._resample = import_torchaudio().transforms.Resample(rate, SAMPLE_RATE)
        self._step_in, self._step_out = _steps(rate)
        self._width: int = self._resample.width
        self._context = math.ceil(self._width / self._step_in)  # in steps
        self._buffer = np.zeros(self._context * self._step_in, np.float32)  # silence before the beginning
        self._waiting: list[Samples] = []
        self._block = rate if block_samples is None else block_samples  # collected, for calls cost more than samples

    def push(self, samples: Samples) -> Samples:
        """What is final with these further samples; often nothing."""
        self._waiting.append(samples)
        if sum(map(len, self._waiting)) < self._block:
            return np.zeros(0, np.float32)
        self._collect()
        steps = (len(self._buffer) - self._width) // self._step_in - self._context
        if steps <= 0:
            return np.zeros(0, np.float32)
        output = self._run()[self._context * self._step_out :][: steps * self._step_out]
        self._buffer = self._buffer[steps * self._step_in :]
        return output

    def finish(self) -> Samples:
        """The last samples; behind the end the signal counts as silent."""
        self._collect()
        return self._run()[self._context * self._step_out :]

    def _collect(self) -> None:
        self._buffer = np.concatenate((self._buffer, *self._waiting))
        self._waiting = []

    def _run(self) -> Samples:
        import torch

        with torch.inference_mode(), _one_thread():
            output: Samples = self._resample(torch.from_numpy(self._buffer)).numpy()
        return output


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch on one thread: the decoders are spread over the cores already."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
