"""Whisper's input, computed by torch on the model's device: log mel energies of windows of sound.

As the paper says (Radford et al. 2022, arXiv:2212.04356, section 2.2): windows of 25 ms each 10 ms, Hann; power; mel
bands; log10, of which what is more than 8 below the loudest counts as that. The numbers are faster-whisper's, to 1e-4;
its own extractor takes ten times the processor time, for it computes in double precision, on the CPU.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stages.base import Pcm

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 16_000
WINDOW_SAMPLES = 30 * SAMPLE_RATE  # the encoder takes exactly 30 s
WINDOW_FRAMES = 3000  # of 10 ms
FRAME_SAMPLES = 160  # from one to the next
FFT_SAMPLES = 400
INT16_SCALE = 1 / 32768  # the model was trained on sound between -1 and 1
QUIETEST = 1e-10  # power that counts as silence
RANGE = 8.0  # in powers of ten, below the loudest


class LogMel:
    """From sound to log mel energies."""

    def __init__(self, bands: npt.NDArray[np.float32], device: str) -> None:
        """bands: weights [mels, 201] of frequencies. device: torch's name."""
        import torch

        self._bands = torch.from_numpy(bands).to(device)
        self._taper = torch.hann_window(FFT_SAMPLES, device=device)
        self._device = device

    def __call__(self, windows: Sequence[Pcm]) -> "torch.Tensor":
        """int16 [samples] each, at most 30 s → float32 [n, mels, 3000] on the device, zero behind each window's end.

        One window after the other: the loudest of each is its own, and no batch of spectra is in memory at once.
        Raises ValueError when a window is empty or longer than 30 s.
        """
        import torch

        with torch.inference_mode():
            features = torch.zeros((len(windows), len(self._bands), WINDOW_FRAMES), device=self._device)
            for pcm, row in zip(windows, features, strict=True):
                count = frames(pcm)
                row[:, :count] = self._energies(torch.tensor(pcm, device=self._device))[:, :count]
        return features

    def _energies(self, pcm: "torch.Tensor") -> "torch.Tensor":
        """int16 [samples] → float32 [mels, frames], perhaps with a frame behind the end: it counts for the loudest."""
        import torch
        from torch.nn.functional import pad

        margin = max(FRAME_SAMPLES, FFT_SAMPLES // 2 + 1 - len(pcm))  # no less than what is mirrored next
        sound = pad(pcm.float().mul_(INT16_SCALE), (0, margin))
        sound = pad(sound[None], (FFT_SAMPLES // 2, FFT_SAMPLES // 2), mode="reflect")[0]
        spectra = torch.fft.rfft(sound.unfold(0, FFT_SAMPLES, FRAME_SAMPLES)[:-1] * self._taper)
        power = spectra.real.square().add_(spectra.imag.square())  # [frames, 201]
        energies: torch.Tensor = (self._bands @ power.T).clamp_(min=QUIETEST).log10_()
        return energies.maximum(energies.max() - RANGE).add_(4).div_(4)


def frames(pcm: Pcm) -> int:
    """Frames of 10 ms, the last one perhaps begun. Raises ValueError as `LogMel` does."""
    if not 0 < len(pcm) <= WINDOW_SAMPLES:
        raise ValueError(f"a speech window must hold 1 to {WINDOW_SAMPLES} samples, not {len(pcm)}")
    return -(-len(pcm) // FRAME_SAMPLES)
