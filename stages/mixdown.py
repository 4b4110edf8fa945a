"""The channels of decoded sound become one."""

import math
from functools import lru_cache

import numpy as np
from av.audio.frame import AudioFrame

from stages.timeline import Samples

# ITU-R BS.775: mono is the mean of the stereo mix, which has centre and surrounds at -3 dB and no low effects.
CENTRE, SURROUND = math.sqrt(0.5), math.sqrt(0.5) / 2
WEIGHTS = {"FL": 0.5, "FR": 0.5, "FC": CENTRE, "LFE": 0.0, "LFE2": 0.0}
# Two channels cancel each other where their mean has less than this share of the power that it would have if they had
# nothing in common: equally loud ones with a correlation below -0.875, as those of a balanced line read as stereo.
CANCELLED = 1 / 8
FULL_SCALE = {"u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31, "f4": 1.0, "f8": 1.0}  # by type of sample


def to_mono(frame: AudioFrame) -> Samples:
    """One channel, float32 [n] within -1 to 1.

    Mono and stereo: the mean; of two channels that cancel each other, the louder one. Layouts with a centre: ITU-R
    BS.775, not scaled down, so that dialogue keeps its level. Layouts without known channels: the mean.
    """
    channels = _channels(frame)
    if len(channels) == 1:
        return _within(channels[0])
    weights = _weights(tuple(channel.name for channel in frame.layout.channels))
    mono: Samples = weights @ channels
    if len(channels) == 2 and weights[0] == weights[1] == 0.5 and _cancel(mono, channels):
        mono = max(channels, key=lambda channel: np.vdot(channel, channel))
    return _within(mono)


def _within(samples: Samples) -> Samples:
    return np.minimum(np.maximum(samples, np.float32(-1.0)), np.float32(1.0))


def _cancel(mono: Samples, channels: Samples) -> bool:
    return bool(np.vdot(mono, mono) < CANCELLED * np.vdot(channels, channels) / 4)


def _channels(frame: AudioFrame) -> Samples:
    """The samples of a frame, float32 [channels, n]."""
    if frame.format.name == "fltp":  # what AAC, MP3, Opus, Vorbis and AC-3 give: without to_ndarray's detours
        channels = np.empty((len(frame.planes), frame.samples), np.float32)
        for channel, plane in zip(channels, frame.planes, strict=True):
            channel[:] = np.frombuffer(memoryview(plane), np.float32, frame.samples)
    else:
        channels = _scaled(frame)
    finite = np.isfinite(channels)
    if not finite.all():  # floats can be NaN, which would stay in the voice detector for ever
        channels[~finite] = 0.0
    return channels


def _scaled(frame: AudioFrame) -> Samples:
    """Samples of any type, as float32 [channels, n]."""
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, len(frame.layout.channels)).T
    scale = np.float32(FULL_SCALE[array.dtype.str[1:]])
    channels: Samples = (array.astype(np.float32) - (scale if array.dtype == np.uint8 else 0)) / scale
    return channels


@lru_cache(maxsize=64)
def _weights(names: tuple[str, ...]) -> Samples:
    """How much of each channel goes into mono, float32 [channels]."""
    if "FC" in names and len(names) > 1:
        return np.array([WEIGHTS.get(name, SURROUND) for name in names], np.float32)
    heard = np.array([not name.startswith("LFE") for name in names], np.float32)
    heard = heard if heard.any() else np.ones_like(heard)
    heard /= heard.sum()
    return heard
