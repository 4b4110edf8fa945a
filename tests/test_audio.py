"""Sound as a stream: resampling, mixing, times, holes, damage."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import audio
from stages.audio import SAMPLE_RATE, AudioChunk, StreamingResampler, read_audio
from stages.checkpoints import SETTLING_SECONDS
from stages.errors import MediaError
from stages.mixdown import to_mono
from stages.options import DecodeOptions
from stages.resample import make_resampler
from stages.timeline import Fault, GapMerger, RepeatableResampler, Samples, SoundBlock, SoundTimeline
from stages.torchaudio_shim import import_torchaudio
from tests.audio_factory import info, tone, write_sound
from transport.messages import Gap

OPTIONS = DecodeOptions()


def read(path: Path, max_gap_seconds: float = 1.0) -> tuple[list[AudioChunk], list[Gap]]:
    items = list(read_audio(os.fsencode(path), info(path), OPTIONS, max_gap_seconds))
    return [item for item in items if isinstance(item, AudioChunk)], [item for item in items if isinstance(item, Gap)]


def joined(chunks: list[AudioChunk]) -> Samples:
    """The samples of chunks that follow each other without a hole."""
    for one, other in pairwise(chunks):
        assert one.end_seconds == other.start_seconds
    return np.concatenate([chunk.samples for chunk in chunks])


# --- resampling -----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from([8_000, 11_025, 22_050, 44_100, 48_000, 47_952, 96_000]),
    length=st.integers(1, 20_000),
    sizes=st.lists(st.integers(1, 9_000), min_size=1, max_size=8),
    block_seconds=st.sampled_from([0.001, 0.05, 1.0]),
)
def test_resampled_pieces_equal_the_resampled_whole(
    rate: int, length: int, sizes: list[int], block_seconds: float
) -> None:
    signal = np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32)
    resampler = StreamingResampler(rate, block_seconds)
    pieces, begin = [], 0
    while begin < length:
        size = sizes[begin % len(sizes)]
        pieces.append(resampler.push(signal[begin : begin + size]))
        begin += size
    streamed = np.concatenate([*pieces, resampler.finish()])
    whole = import_torchaudio().transforms.Resample(rate, SAMPLE_RATE)(torch.from_numpy(signal)).numpy()
    assert streamed.shape == whole.shape
    np.testing.assert_allclose(streamed, whole, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    rate=st.sampled_from([16_000, 8_000, 44_100, 48_000]), skipped=st.integers(0, 300_000), size=st.integers(1, 9_000)
)
def test_a_resampler_that_skips_is_right_a_second_and_a_filter_later(rate: int, skipped: int, size: int) -> None:
    signal = np.random.default_rng(size).uniform(-1, 1, skipped + 3 * rate).astype(np.float32)
    through, later = make_resampler(rate), make_resampler(rate)
    assert isinstance(through, RepeatableResampler)
    assert isinstance(later, RepeatableResampler)
    before = len(through.push(signal[:skipped]))
    later.skip(skipped)
    assert len(later.held_back()) == len(through.held_back())
    pieces = [signal[begin : begin + size] for begin in range(skipped, len(signal), size)]
    whole = np.concatenate([*(through.push(piece) for piece in pieces), through.finish()])
    part = np.concatenate([*(later.push(piece) for piece in pieces), later.finish()])
    wrong = math.ceil((skipped / rate + SETTLING_SECONDS) * SAMPLE_RATE) - before
    assert len(whole) == len(part)
    np.testing.assert_array_equal(part[wrong:], whole[wrong:])


@pytest.mark.parametrize("rate", [7_999, 44_056, 44_099])
def test_rates_without_a_common_divisor_keep_a_sine_a_sine(rate: int) -> None:
    resampler = make_resampler(rate)
    pieces = [resampler.push(piece) for piece in np.array_split(tone(2.0, rate), 7)]
    result = np.concatenate([*pieces, resampler.finish()])
    assert abs(len(result) - 2 * SAMPLE_RATE) <= 2
    np.testing.assert_allclose(result[100:-100], tone(2.1)[100 : len(result) - 100], atol=1e-3)


def test_a_track_without_samples_stays_empty() -> None:
    assert len(StreamingResampler(44_100).finish()) == 0


def test_torch_gets_its_threads_back() -> None:
    before = torch.get_num_threads()
    resampler = make_resampler(48_000)
    resampler.push(tone(3.0, 48_000))
    assert torch.get_num_threads() == before


# --- mixing down ----------------------------------------------------------------------------------------------------


def frame(channels: list[list[float]], layout: str, format_name: str = "fltp") -> av.AudioFrame:
    scale, dtype = {
        "fltp": (1.0, np.float32),
        "dblp": (1.0, np.float64),
        "s16p": (2.0**15, np.int16),
        "s32p": (2.0**31, np.int32),
    }[format_name]
    made = av.AudioFrame.from_ndarray((np.array(channels) * scale).astype(dtype), format_name, layout)
    made.sample_rate = SAMPLE_RATE
    return made


@pytest.mark.parametrize("format_name", ["fltp", "dblp", "s16p", "s32p"])
def test_stereo_is_averaged_in_every_sample_format(format_name: str) -> None:
    mono = to_mono(frame([[0.5, -0.5, 0.25], [0.25, -0.5, -0.25]], "stereo", format_name))
    np.testing.assert_allclose(mono, [0.375, -0.5, 0.0], atol=1e-4)
    assert mono.dtype == np.float32


def test_packed_and_unsigned_samples() -> None:
    packed = av.AudioFrame.from_ndarray(np.array([[0, 16384, 8192, 8192]], np.int16), "s16", "stereo")
    np.testing.assert_allclose(to_mono(packed), [0.25, 0.25])
    unsigned = av.AudioFrame.from_ndarray(np.array([[0, 128, 255]], np.uint8), "u8", "mono")
    np.testing.assert_allclose(to_mono(unsigned), [-1.0, 0.0, 127 / 128])


def test_dialogue_in_the_centre_outweighs_surrounds_and_low_effects_are_left_out() -> None:
    loud = {
        name: to_mono(frame([[0.5] if name == other else [0.0] for other in FIVE_ONE], "5.1"))[0] for name in FIVE_ONE
    }
    assert loud["FC"] == pytest.approx(0.5 * 0.7071, abs=1e-4)
    assert loud["FL"] == loud["FR"] == pytest.approx(0.25)
    assert loud["BL"] == loud["BR"] == pytest.approx(0.5 * 0.35355, abs=1e-4)
    assert loud["LFE"] == 0.0
    assert to_mono(frame([[0.5], [0.5], [1.0]], "2.1"))[0] == pytest.approx(0.5)


FIVE_ONE = ("FL", "FR", "FC", "LFE", "BL", "BR")


def test_nan_becomes_silence_and_what_is_too_loud_is_clipped() -> None:
    np.testing.assert_array_equal(to_mono(frame([[np.nan, np.inf, 3.0, -3.0]], "mono")), [0.0, 0.0, 1.0, -1.0])


# --- whole files ----------------------------------------------------------------------------------------------------


def test_sound_at_16_khz_comes_through_unchanged_in_chunks_of_a_second(tmp_path: Path) -> None:
    chunks, gaps = read(write_sound(tmp_path / "a.mka", [tone(3.5)]))
    assert [len(chunk.samples) for chunk in chunks] == [16_000, 16_000, 16_000, 8_000]
    assert gaps == []
    np.testing.assert_allclose(joined(chunks), tone(3.5), atol=1e-4)


def test_another_rate_and_six_channels(tmp_path: Path) -> None:
    silence = np.zeros(48_000 * 2, np.float32)
    channels = [silence, silence, tone(2.0, 48_000), silence, silence, silence]
    chunks, _ = read(write_sound(tmp_path / "a.mka", channels, 48_000, "5.1", "flac"))
    result = joined(chunks)
    assert len(result) == 2 * SAMPLE_RATE
    np.testing.assert_allclose(result[100:-100], 0.7071 * tone(2.0)[100:-100], atol=1e-3)


def test_a_short_hole_is_filled_with_silence(tmp_path: Path) -> None:
    chunks, gaps = read(write_sound(tmp_path / "a.mka", [tone(4.0)], holes=[(1.0, 1.5)]))
    result = joined(chunks)
    assert gaps == []
    assert len(result) == 4 * SAMPLE_RATE
    assert not result[round(1.1 * SAMPLE_RATE) : round(1.4 * SAMPLE_RATE)].any()
    np.testing.assert_allclose(result[2 * SAMPLE_RATE :], tone(4.0)[2 * SAMPLE_RATE :], atol=1e-4)


def test_a_long_hole_is_a_gap_and_time_stays_true_behind_it(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mka", [tone(6.0)], holes=[(1.0, 4.0)])
    chunks, (gap,) = read(path)
    assert [gap.start_seconds, gap.end_seconds] == pytest.approx([1.0, 4.0], abs=0.07)
    assert gap.reason.startswith("sound-missing: ")
    behind = [chunk for chunk in chunks if chunk.start_seconds >= gap.end_seconds]
    begin = round(behind[0].start_seconds * SAMPLE_RATE)
    np.testing.assert_allclose(joined(behind), tone(6.0)[begin:], atol=1e-4)
    filled, gaps = read(path, max_gap_seconds=5.0)
    assert gaps == []
    assert len(joined(filled)) == 6 * SAMPLE_RATE


def test_corrupt_packets_are_one_gap_and_the_rest_is_heard(tmp_path: Path) -> None:
    channels = [tone(5.0, 48_000)] * 2
    path = write_sound(tmp_path / "a.m4a", channels, 48_000, "stereo", "aac", broken=range(50, 58))
    chunks, (gap,) = read(path)
    assert gap.reason.startswith("sound-corrupt: ")
    assert 1.0 < gap.start_seconds < gap.end_seconds < 1.3
    assert len(joined(chunks)) == pytest.approx(5 * SAMPLE_RATE, abs=512)


def test_a_truncated_file_is_a_gap_to_its_stated_end(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mka", [tone(20.0)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    chunks, (gap,) = read(path)
    assert gap.reason.startswith("sound-truncated: ")
    assert gap.start_seconds == chunks[-1].end_seconds == pytest.approx(10.0, abs=0.1)
    assert gap.end_seconds == pytest.approx(20.0)


def test_a_track_of_garbage_is_one_gap(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mka", [tone(4.0)], codec="flac", broken=range(1000))
    chunks, gaps = read(path)
    assert chunks == []
    assert [(gap.start_seconds, round(gap.end_seconds)) for gap in gaps] == [(0.0, 4)]


def test_large_and_late_times_count_from_the_start_of_the_medium(tmp_path: Path) -> None:
    channels = [tone(3.0, 48_000)] * 2
    chunks, gaps = read(write_sound(tmp_path / "a.ts", channels, 48_000, "stereo", "mp2", shift_seconds=60_000.0))
    assert gaps == []
    assert chunks[0].start_seconds == 0.0
    assert len(joined(chunks)) == pytest.approx(3 * SAMPLE_RATE, abs=1_000)


def test_rate_and_channels_may_change_midway(tmp_path: Path) -> None:
    first = write_sound(tmp_path / "1.ts", [tone(3.0, 48_000)] * 2, 48_000, "stereo", "mp2")
    second = write_sound(tmp_path / "2.ts", [tone(3.0, 32_000)], 32_000, "mono", "mp2", shift_seconds=3.0)
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    chunks, gaps = read(both)
    result = joined(chunks)
    assert gaps == []
    assert len(result) == pytest.approx(6 * SAMPLE_RATE, abs=2_000)
    for begin in range(SAMPLE_RATE, 5 * SAMPLE_RATE, SAMPLE_RATE // 4):  # everywhere the same pitch
        part = result[begin : begin + SAMPLE_RATE // 4]
        loudest = np.argmax(np.abs(np.fft.rfft(part * np.hanning(len(part))))) * 4
        assert loudest == pytest.approx(440, abs=8)


def test_files_without_sound_and_changed_files_are_refused(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mka", [tone(1.0)])
    media = info(path)
    with pytest.raises(MediaError, match="no sound track"):
        next(
            read_audio(
                os.fsencode(path),
                type(media)(container="x", duration_seconds=1.0, start_seconds=0.0, video=None, audio=None),
                OPTIONS,
            )
        )
    assert media.audio is not None
    moved = type(media.audio)(
        **{name: getattr(media.audio, name) for name in media.audio.__struct_fields__} | {"index": 7}
    )
    other = type(media)(container="x", duration_seconds=1.0, start_seconds=0.0, video=None, audio=moved)
    with pytest.raises(MediaError, match="changed since it was probed"):
        next(read_audio(os.fsencode(path), other, OPTIONS))


class FailingContainer:
    """A container whose reads fail as often as told; then its packets come."""

    streams = ()

    def __init__(self, errors: list[OSError]) -> None:
        self._errors = errors

    def demux(self, stream: object) -> Iterator[av.Packet]:
        if self._errors:
            raise self._errors.pop(0)
        return iter(())


class IdleDecoder:
    """Stands in for a decoder that gets no packet."""

    stream = None


def faults(errors: list[OSError]) -> list[Fault]:
    frames = audio._frames(FailingContainer(errors), IdleDecoder())  # type: ignore[arg-type]
    return [frame for frame in frames if isinstance(frame, Fault)]


def test_reading_goes_on_behind_damage_but_not_for_ever_and_not_on_a_broken_disk() -> None:
    damage = av.error.InvalidDataError(1094995529, "Invalid data")
    assert len(faults([damage] * 3)) == 3
    assert len(faults([damage] * 1000)) == audio.MAX_FAILED_READS + 1
    assert faults([OSError(5, "Input/output error")] * 9) == [
        Fault("reading failed (Input/output error)", code="read-error")
    ]
    (gap,) = place([Fault("reading failed (Input/output error)", code="read-error")], end=2.0)
    assert gap == Gap(start_seconds=0.0, end_seconds=2.0, reason="read-error: reading failed (Input/output error)")


# --- the timeline ---------------------------------------------------------------------------------------------------


def place(blocks: list[SoundBlock | Fault], start: float = 0.0, end: float | None = None) -> list[AudioChunk | Gap]:
    timeline = SoundTimeline(make_resampler, start, 1.0)
    items: list[AudioChunk | Gap] = []
    for block in blocks:
        if isinstance(block, Fault):
            timeline.fault(block)
        else:
            items += timeline.place(block)
    return items + list(timeline.finish(end))


def block(start: float | None, seconds: float, rate: int = SAMPLE_RATE) -> SoundBlock:
    return SoundBlock(start, rate, np.full(round(seconds * rate), 0.5, np.float32))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-0.5, 3.0), st.floats(0.01, 2.5), st.sampled_from([16_000, 8_000, 32_000])), max_size=12
    )
)
def test_chunks_never_overlap_and_what_lies_between_them_is_a_gap(moves: list[tuple[float, float, int]]) -> None:
    blocks: list[SoundBlock | Fault] = []
    at = 0.0
    for move, seconds, rate in moves:
        at = max(0.0, at + move)
        blocks.append(block(at, seconds, rate))
        at += seconds
    items = place(blocks)
    chunks = [item for item in items if isinstance(item, AudioChunk)]
    gaps = [item for item in items if isinstance(item, Gap) and item.reason.startswith("sound-missing")]
    assert all(0 < len(chunk.samples) <= SAMPLE_RATE for chunk in chunks)
    end = 0.0
    for chunk in chunks:
        assert chunk.start_seconds >= end
        if chunk.start_seconds > end:
            assert any(
                gap.start_seconds == pytest.approx(end, abs=1e-3)
                and gap.end_seconds == pytest.approx(chunk.start_seconds, abs=1e-3)
                for gap in gaps
            )
        end = chunk.end_seconds
    last = (
        max(
            (item.start_seconds or 0) + len(item.samples) / item.rate for item in blocks if isinstance(item, SoundBlock)
        )
        if blocks
        else 0.0
    )
    assert end == pytest.approx(last, abs=0.021)


def test_rounded_times_do_not_tear_the_sound() -> None:
    items = place([block(0.0, 0.5), block(0.512, 0.5), block(0.995, 0.5), block(None, 0.5)])
    assert [len(item.samples) for item in items if isinstance(item, AudioChunk)] == [16_000, 16_000]


def test_sound_before_the_start_is_cut_and_times_running_backwards_are_told() -> None:
    items = place([block(-0.7, 1.0), block(0.1, 1.0)], start=0.0)
    assert sum(len(item.samples) for item in items if isinstance(item, AudioChunk)) == round(1.1 * SAMPLE_RATE)
    (gap,) = [item for item in items if isinstance(item, Gap)]
    assert gap.reason.startswith("sound-backwards: ")
    assert [gap.start_seconds, gap.end_seconds] == pytest.approx([0.1, 0.3])


def test_a_lost_packet_of_10_ms_is_a_gap_and_does_not_move_the_rest() -> None:
    items = place([block(0.0, 0.5), Fault("bad"), block(0.51, 0.5)])
    assert sum(len(item.samples) for item in items if isinstance(item, AudioChunk)) == round(1.01 * SAMPLE_RATE)
    assert [item for item in items if isinstance(item, Gap)] == [
        Gap(start_seconds=0.5, end_seconds=0.51, reason="sound-corrupt: bad")
    ]


def test_damage_at_the_end_is_told_though_nobody_knows_how_much_is_missing() -> None:
    (_, gap) = place([block(0.0, 0.5), Fault("bad")])
    assert gap == Gap(start_seconds=0.5, end_seconds=0.5, reason="sound-corrupt: bad")


def test_neighbouring_gaps_of_one_kind_are_joined() -> None:
    gaps = [
        Gap(start_seconds=at, end_seconds=at + 0.1, reason=f"{kind}: x")
        for at, kind in [(0.0, "a"), (0.5, "a"), (0.9, "b"), (9.0, "b")]
    ]
    merger = GapMerger()
    items: list[AudioChunk | Gap] = [*gaps[:3], AudioChunk(5.0, np.zeros(3, np.float32)), gaps[3]]
    merged = [item for pushed in items for item in merger.push(pushed)] + merger.finish()
    spans = [(item.start_seconds, item.end_seconds) for item in merged]
    assert spans == [(0.0, 0.6), (0.9, 1.0), (5.0, 5.0001875), (9.0, 9.1)]


# --- torchaudio's import --------------------------------------------------------------------------------------------

FAKE = (
    "raise OSError('libc10_cuda.so')\n",
    "raise RuntimeError('other CUDA')\n",
    "_IS_TORCHAUDIO_EXT_AVAILABLE = True\n",
)
PROBE = (
    "from stages.torchaudio_shim import ensure, import_torchaudio\n"
    "ensure()\n"
    "print(import_torchaudio()._extension._IS_TORCHAUDIO_EXT_AVAILABLE)\n"
)


@pytest.mark.parametrize(("extension", "available"), list(zip(FAKE, ("False", "False", "True"), strict=True)))
def test_the_extension_serves_where_it_loads_and_is_replaced_elsewhere(
    tmp_path: Path, extension: str, available: str
) -> None:
    package = tmp_path / "torchaudio"
    package.mkdir()
    (package / "__init__.py").write_text("from . import _extension\n")
    (package / "_extension.py").write_text(extension)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[1]}"}
    result = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == available


def test_what_needs_the_missing_extension_says_so() -> None:
    torchaudio = import_torchaudio()
    if torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE:
        pytest.skip("torchaudio's extension fits this torch")
    with pytest.raises(RuntimeError, match="forced_align needs torchaudio's native extension"):
        torchaudio.functional.forced_align(None, None)
