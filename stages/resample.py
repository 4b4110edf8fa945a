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

    Output i depends on the inputs `width` to its left and right. So each call of Resample gets, besides a block of
    samples, a context on both sides; what comes out for the context is not used, but computed with the neighbouring
    block. All calls have one length: for each length torch keeps a compiled convolution, which costs time and never
    goes away.
    """

    def __init__(self, rate: int, block_seconds: float = 1.0) -> None:
        self._resample = import_torchaudio().transforms.Resample(rate, SAMPLE_RATE)
        self._step_in, self._step_out = _steps(rate)
        width: int = self._resample.width
        context = math.ceil(width / self._step_in)  # in steps, as is `block`
        block = math.ceil(rate * block_seconds / self._step_in)
        self._context_in, self._context_out = context * self._step_in, context * self._step_out
        self._block_in, self._block_out = block * self._step_in, block * self._step_out
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
        import torch

        with torch.inference_mode(), _one_thread():
            output: Samples = self._resample(torch.from_numpy(samples)).numpy()
        return output[self._context_out :][: self._block_out]


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

    def skip(self, samples: int) -> None:
        """Nothing: no sample depends on another."""

    def held_back(self) -> Samples:
        return np.zeros(0, np.float32)
