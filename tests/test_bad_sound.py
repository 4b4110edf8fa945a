"""Odd sound: what speech is found in it, and how what is missing is named. Real files, the real voice detector.

docs/sound_input.md is the table of all of this.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benches.sample_voice import SAMPLE_RATE as VOICE_RATE
from benches.sample_voice import VOICES, say
from stages.audio import AudioChunk, read_audio
from stages.captions import choose_track
from stages.mixdown import to_mono
from stages.options import DecodeOptions, SpeechOptions
from stages.timeline import Samples
from stages.windows import SpeechWindow, read_speech_windows, to_pcm
from tests.audio_factory import info, write_sound
from tests.runs import run_cli, settings_for, stored_points
from tests.test_checkpoints import assert_resumable
from transport.messages import Gap

MEDIA = Path(__file__).parents[2] / "shared" / "media"
READER = next(MEDIA.glob("reader-1688*"), None)
RATE = 16_000
LEAD_SECONDS = 2.0  # of silence before and behind the sentence
SENTENCE = "where are the others who went away this morning and what did they say about it"
SLACK_SECONDS = 0.45  # what a found segment may miss, or add: its padding is 0.2 s, consonants at its ends are quiet
Spans = list[tuple[float, float]]


def sentence(rate: int = RATE, seed: int = 0) -> Samples:
    """Five seconds of a voice between silences, float32 [n], at most 0.5 loud."""
    voice = say(SENTENCE, VOICES[0], np.random.default_rng(seed))
    at = np.arange(len(voice) * rate // VOICE_RATE) * (VOICE_RATE / rate)
    silence = np.zeros(round(LEAD_SECONDS * rate), np.float32)
    return np.concatenate([silence, np.interp(at, np.arange(len(voice)), voice).astype(np.float32), silence])


SPOKEN = sentence()
SPAN = (LEAD_SECONDS, len(SPOKEN) / RATE - LEAD_SECONDS)  # when the sentence is said
NOTHING = np.zeros_like(SPOKEN)


def read(path: Path) -> tuple[list[SpeechWindow], list[Gap]]:
    items = list(read_speech_windows(os.fsencode(path), info(path), DecodeOptions(), SpeechOptions()))
    return [item for item in items if isinstance(item, SpeechWindow)], [item for item in items if isinstance(item, Gap)]


def speech_in(windows: Sequence[SpeechWindow]) -> Spans:
    return [span for window in windows for span in window.speech]


def assert_found(found: Spans, *spans: tuple[float, float]) -> None:
    """Each of the spans was found, but for its ends and short pauses, and nothing beside them."""
    for start, end in spans:
        inside = sum(max(0.0, min(end, last) - max(start, first)) for first, last in found)
        assert inside >= end - start - SLACK_SECONDS, (found, spans)
    assert all(any(start - SLACK_SECONDS < a < b < end + SLACK_SECONDS for start, end in spans) for a, b in found), (
        found,
        spans,
    )


# --- no speech in it --------------------------------------------------------------------------------------------------


def music(seconds: float) -> Samples:
    """Broken chords of a plucked string, a bass drum and a cymbal, 120 beats a minute."""
    generator, sound = np.random.default_rng(0), np.zeros(round((seconds + 1) * RATE))
    time = np.arange(RATE) / RATE
    for beat in range(int(seconds * 2)):
        begin, root = beat * RATE // 2, 2.0 ** ((0, 5, 7, 0)[beat // 4 % 4] / 12)
        for hertz in (261.6, 329.6, 392.0, 523.3):
            note = sum(np.sin(2 * np.pi * hertz * root * part * time) / part for part in range(1, 6))
            sound[begin : begin + RATE] += note * np.exp(-3 * time)
        sound[begin : begin + RATE] += 4 * np.sin(2 * np.pi * 60 * time) * np.exp(-20 * time)
        sound[begin : begin + RATE] += 2 * generator.standard_normal(RATE) * np.exp(-60 * time)
    return np.asarray(0.7 * sound / np.abs(sound).max(), np.float32)[: round(seconds * RATE)]


def noise(seconds: float, level: float) -> Samples:
    signal = np.random.default_rng(0).standard_normal(round(seconds * RATE))
    return np.asarray((level * signal).clip(-1, 1), np.float32)


def hum(seconds: float) -> Samples:
    return np.asarray(0.5 * np.sin(2 * np.pi * 50 * np.arange(round(seconds * RATE)) / RATE), np.float32)


WORDLESS = {
    "music": music(20.0),
    "silence": np.zeros(20 * RATE, np.float32),
    "quiet-noise": noise(20.0, 0.001),
    "loud-noise": noise(20.0, 0.3),
    "hum": hum(20.0),
    "one-value": np.full(20 * RATE, 0.9, np.float32),  # a broken converter
}


@pytest.mark.parametrize("name", WORDLESS)
def test_sound_without_speech_gives_no_window_and_nothing_is_missing(tmp_path: Path, name: str) -> None:
    assert read(write_sound(tmp_path / "a.mka", [WORDLESS[name]])) == ([], [])


def test_a_sentence_is_found_between_two_pieces_of_music(tmp_path: Path) -> None:
    piece = music(6.0)
    windows, gaps = read(write_sound(tmp_path / "a.mka", [np.concatenate([piece, SPOKEN, piece])]))
    assert_found(speech_in(windows), (6.0 + SPAN[0], 6.0 + SPAN[1]))
    assert gaps == []


# --- bad recordings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [20, 100, 10_000])
def test_clipped_speech_is_found(tmp_path: Path, gain: float) -> None:
    """The last is a square wave: nothing is left of the sound but its sign."""
    clipped = np.clip(SPOKEN * gain, -1, 1)
    assert np.mean(np.abs(clipped[np.abs(SPOKEN) > 0]) == 1) > 0.2
    windows, gaps = read(write_sound(tmp_path / "a.mka", [clipped]))
    assert_found(speech_in(windows), SPAN)
    assert gaps == []


def test_floats_beyond_full_scale_are_clipped_and_found(tmp_path: Path) -> None:
    windows, gaps = read(write_sound(tmp_path / "a.mka", [SPOKEN * 50], codec="pcm_f32le"))
    assert_found(speech_in(windows), SPAN)
    assert gaps == []
    assert max(int(np.abs(window.pcm.astype(int)).max()) for window in windows) == 32_768


@pytest.mark.parametrize("decibels", [-20, -40])
def test_quiet_speech_is_found(tmp_path: Path, decibels: float) -> None:
    windows, _ = read(write_sound(tmp_path / "a.mka", [SPOKEN * np.float32(10 ** (decibels / 20))]))
    assert_found(speech_in(windows), SPAN)


def telephone(signal: Samples, rate: int) -> Samples:
    """As through a telephone line: 300 to 3400 Hz, 24 dB an octave below and 48 above."""
    hertz = np.fft.rfftfreq(len(signal), 1 / rate) + 1e-3
    gain = 1 / np.sqrt((1 + (300 / hertz) ** 8) * (1 + (hertz / 3400) ** 16))
    filtered = np.fft.irfft(np.fft.rfft(signal) * gain, len(signal))
    return np.asarray(0.5 * filtered / np.abs(filtered).max(), np.float32)


TELEPHONES = [("wav", "pcm_mulaw"), ("wav", "pcm_alaw"), ("au", "pcm_mulaw"), ("mka", "g726"), ("webm", "libopus")]


@pytest.mark.parametrize(("ending", "codec"), TELEPHONES)
def test_telephone_sound_of_8_khz_is_found(tmp_path: Path, ending: str, codec: str) -> None:
    line = telephone(sentence(8_000), 8_000)
    windows, gaps = read(write_sound(tmp_path / f"a.{ending}", [line], 8_000, codec=codec))
    assert_found(speech_in(windows), SPAN)
    assert gaps == []


# --- channels ---------------------------------------------------------------------------------------------------------

SURROUND_CODECS = [("a.flac", "flac"), ("a.wav", "pcm_s16le"), ("a.mp4", "aac"), ("a.ts", "ac3"), ("a.mkv", "libopus")]
FIVE_ONE = ("FL", "FR", "FC", "LFE", "BL", "BR")


def surround(name: str, voice: Samples) -> list[Samples]:
    """Six channels, one of which speaks."""
    return [voice if name == other else np.zeros_like(voice) for other in FIVE_ONE]


@pytest.mark.parametrize(("name", "codec"), SURROUND_CODECS)
def test_speech_in_the_centre_of_5_1_alone_is_found_at_its_level(tmp_path: Path, name: str, codec: str) -> None:
    """3 dB below its own channel, as ITU-R BS.775 says; not the 15 dB that a mean of six would take."""
    voice = sentence(48_000)
    path = write_sound(tmp_path / name, surround("FC", voice), 48_000, "5.1", codec)
    windows, gaps = read(path)
    assert_found(speech_in(windows), SPAN)
    assert gaps == []
    pcm = np.concatenate([window.pcm for window in windows]).astype(float) / 32_768
    loudness = np.sqrt(np.sum(pcm**2) / RATE)
    assert loudness == pytest.approx(np.sqrt(0.5) * np.sqrt(np.sum(voice.astype(float) ** 2) / 48_000), rel=0.1)


@pytest.mark.parametrize("channel", ["FL", "BR"])
def test_speech_in_any_other_channel_of_5_1_is_found(tmp_path: Path, channel: str) -> None:
    windows, _ = read(write_sound(tmp_path / "a.flac", surround(channel, SPOKEN), RATE, "5.1", "flac"))
    assert_found(speech_in(windows), SPAN)


def test_six_channels_that_nobody_named_are_all_heard(tmp_path: Path) -> None:
    """PCM in Matroska does not say which channel is which."""
    for number in (0, 3, 5):
        channels = [SPOKEN if number == other else NOTHING for other in range(6)]
        windows, _ = read(write_sound(tmp_path / f"{number}.mka", channels, RATE, "5.1"))
        assert_found(speech_in(windows), SPAN)


@pytest.mark.parametrize("codec", ["pcm_s16le", "aac", "libopus"])
@pytest.mark.parametrize("speaking", [0, 1])
def test_speech_in_one_channel_of_stereo_is_found(tmp_path: Path, codec: str, speaking: int) -> None:
    rate = 48_000
    voice = sentence(rate)
    channels = [voice if channel == speaking else np.zeros_like(voice) for channel in range(2)]
    windows, gaps = read(write_sound(tmp_path / "a.mkv", channels, rate, "stereo", codec))
    assert_found(speech_in(windows), SPAN)
    assert gaps == []


@pytest.mark.parametrize("codec", ["pcm_s16le", "aac", "libopus", "mp2", "flac"])
@pytest.mark.parametrize("share", [-1.0, -0.8])
def test_a_voice_in_opposite_phase_on_both_channels_is_found(tmp_path: Path, codec: str, share: float) -> None:
    """A balanced line that was plugged into stereo: the mean of its channels is silence."""
    rate = 48_000
    voice = sentence(rate)
    windows, gaps = read(write_sound(tmp_path / "a.mkv", [voice, share * voice], rate, "stereo", codec))
    assert_found(speech_in(windows), SPAN)
    assert gaps == []
    pcm = np.concatenate([window.pcm for window in windows]).astype(float) / 32_768
    whole = np.sqrt(np.sum(voice.astype(float) ** 2) / rate)
    assert np.sqrt(np.sum(pcm**2) / RATE) == pytest.approx(whole, rel=0.1)  # at its own level


def test_a_voice_in_opposite_phase_is_exactly_that_of_the_louder_channel(tmp_path: Path) -> None:
    (window,), _ = read(write_sound(tmp_path / "a.mka", [-0.9 * SPOKEN, SPOKEN], layout="stereo"))
    begin = round(window.start_seconds * RATE)
    np.testing.assert_allclose(window.pcm, to_pcm(SPOKEN[begin : begin + len(window.pcm)]), atol=2)


def test_a_voice_in_opposite_phase_under_noise_of_each_channel_is_found(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    level = float(np.sqrt(np.mean(SPOKEN[2 * RATE : -2 * RATE] ** 2))) / 10  # 20 dB below the voice
    left, right = (sign * SPOKEN + level * generator.standard_normal(len(SPOKEN)) for sign in (1, -1))
    channels = [np.asarray(channel.clip(-1, 1), np.float32) for channel in (left, right)]
    windows, _ = read(write_sound(tmp_path / "a.mka", channels, layout="stereo"))
    assert_found(speech_in(windows), SPAN)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "flac")])
def test_a_track_in_opposite_phase_is_resumed_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str
) -> None:
    """Which channel is taken depends on nothing but the frame in hand."""
    monkeypatch.setattr("stages.windows.SECTION_SAMPLES", 8 * RATE)
    both = np.concatenate([SPOKEN] * 4)
    turned = np.concatenate([-0.9 * SPOKEN, SPOKEN, -SPOKEN, 0.5 * SPOKEN]).astype(np.float32)
    places = assert_resumable(write_sound(tmp_path / name, [both, turned], layout="stereo", codec=codec), least=3)
    assert all(place.state for place in places)


def frame_of(channels: Sequence[Samples], layout: str = "stereo") -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.stack(channels).astype(np.float32), "fltp", layout)
    frame.sample_rate = RATE
    return frame


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(-1, 1), st.floats(0.01, 1), st.floats(0.01, 1))
def test_two_channels_are_averaged_unless_they_cancel_each_other(
    seed: int, correlation: float, left_level: float, right_level: float
) -> None:
    """What comes out has at least an eighth of the power that channels with nothing in common would give."""
    one, other = np.random.default_rng(seed).uniform(-1, 1, (2, 1024))
    mixed = correlation * one + np.sqrt(1 - correlation**2) * other
    left, right = (left_level * one).clip(-1, 1), (right_level * mixed).clip(-1, 1)
    mono, mean = to_mono(frame_of([left, right])), (left + right) / 2
    least = (np.sum(left**2) + np.sum(right**2)) / 4 / 8
    if np.sum(mean**2) > 1.01 * least:
        np.testing.assert_allclose(mono, mean, atol=1e-6)
    elif np.sum(mean**2) < 0.99 * least:
        np.testing.assert_array_equal(mono, max(left, right, key=lambda channel: np.sum(channel**2)).astype(np.float32))
    assert np.sum(mono.astype(float) ** 2) >= 0.99 * least


def test_only_a_pair_of_equals_is_compared() -> None:
    """Effects that cancel each other are no loss where a centre speaks; low effects are never heard."""
    effect = np.full(1024, 0.5, np.float32)
    silence, voice = np.zeros_like(effect), np.full(1024, 0.01, np.float32)
    mono = to_mono(frame_of([effect, -effect, voice, silence, silence, silence], "5.1"))
    np.testing.assert_allclose(mono, np.sqrt(0.5) * voice, atol=1e-7)
    np.testing.assert_array_equal(to_mono(frame_of([silence, silence])), silence)


def test_a_channel_of_what_are_no_numbers_does_not_silence_the_other(tmp_path: Path) -> None:
    broken = np.full_like(SPOKEN, np.nan)
    windows, gaps = read(write_sound(tmp_path / "a.mka", [broken, SPOKEN], layout="stereo", codec="pcm_f32le"))
    assert_found(speech_in(windows), SPAN)
    assert gaps == []


# --- sound and picture ------------------------------------------------------------------------------------------------


def write_film(
    path: Path,
    picture_seconds: float,
    sound: Samples = SPOKEN,
    shift_seconds: float = 0.0,
    sound_shift_seconds: float = 0.0,
    language: str | None = None,
    holes: Sequence[tuple[float, float]] = (),
) -> Path:
    """A picture and a sound track, which may hold no packet at all; times before 0 are written as they are."""
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as output:
        codec = "mp2" if path.suffix in (".ts", ".avi") else "aac"
        video: Any = output.add_stream("mpeg4", rate=5)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio: Any = output.add_stream(codec, rate=RATE, layout="mono")
        if language is not None:
            audio.metadata["language"] = language
        heard = [
            packet
            for packet in _encoded(audio, _sound(audio, sound))
            if not any(start <= float(packet.pts * packet.time_base) < end for start, end in holes)
        ]
        packets = [(packet, video, shift_seconds) for packet in _encoded(video, _pictures(picture_seconds))]
        packets += [(packet, audio, shift_seconds + sound_shift_seconds) for packet in heard]
        for packet, stream, wait in sorted(packets, key=lambda each: float(each[0].dts * each[0].time_base) + each[2]):
            ticks = round(wait / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts + ticks, packet.dts + ticks, stream
            output.mux(packet)
    return path


def _encoded(stream: Any, frames: Iterable[Any]) -> list[Any]:
    packets = [packet for frame in frames for packet in stream.encode(frame)]
    return packets + stream.encode(None) if packets else []


def _pictures(seconds: float) -> Iterator[av.VideoFrame]:
    for number in range(round(seconds * 5)):
        frame = av.VideoFrame(64, 48, "yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 5)
        yield frame


def _sound(stream: Any, samples: Samples) -> Iterator[av.AudioFrame]:
    name = stream.codec_context.format.name
    for begin in range(0, len(samples), 1024):
        piece = samples[None, begin : begin + 1024]
        if name == "s16":
            piece = np.rint(piece * 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), name, "mono")
        frame.sample_rate, frame.pts = RATE, begin
        yield frame


def later(seconds: float) -> tuple[float, float]:
    """When the sentence is said if the sound begins so much later."""
    return SPAN[0] + seconds, SPAN[1] + seconds


CONTAINERS = (".mp4", ".mov", ".mkv", ".ts", ".avi")


@pytest.mark.parametrize("ending", CONTAINERS)
@pytest.mark.parametrize("picture_seconds", [3.0, 20.0])
def test_sound_longer_or_shorter_than_the_picture_is_heard_whole(
    tmp_path: Path, ending: str, picture_seconds: float
) -> None:
    windows, gaps = read(write_film(tmp_path / f"a{ending}", picture_seconds))
    assert_found(speech_in(windows), SPAN)
    assert gaps == []


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv", ".ts"])
@pytest.mark.parametrize("shift_seconds", [1_234.5, 90_000.0])
def test_a_medium_that_begins_late_counts_from_its_beginning(tmp_path: Path, ending: str, shift_seconds: float) -> None:
    path = write_film(tmp_path / f"a{ending}", 12.0, shift_seconds=shift_seconds)
    assert info(path).start_seconds == pytest.approx(shift_seconds, abs=0.2)
    windows, gaps = read(path)
    assert_found(speech_in(windows), SPAN)
    assert gaps == []


@pytest.mark.parametrize("ending", [".mkv", ".ts"])
def test_a_medium_that_begins_before_zero_counts_from_its_beginning(tmp_path: Path, ending: str) -> None:
    path = write_film(tmp_path / f"a{ending}", 12.0, shift_seconds=-1.5)
    assert info(path).start_seconds == pytest.approx(-1.5, abs=0.2)
    windows, gaps = read(path)
    assert_found(speech_in(windows), SPAN)
    assert gaps == []


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv", ".ts"])
def test_sound_that_begins_behind_the_picture_keeps_its_time(tmp_path: Path, ending: str) -> None:
    windows, gaps = read(write_film(tmp_path / f"a{ending}", 14.0, sound_shift_seconds=2.5))
    assert_found(speech_in(windows), later(2.5))
    assert gaps == []


def test_sound_before_the_picture_is_heard_where_players_play_it(tmp_path: Path) -> None:
    """Matroska begins with whatever comes first; in MP4 an edit list takes away what lies before 0."""
    whole, _ = read(write_film(tmp_path / "a.mkv", 12.0, sound_shift_seconds=-1.5))
    cut, gaps = read(write_film(tmp_path / "a.mp4", 12.0, sound_shift_seconds=-3.0))
    assert_found(speech_in(whole), SPAN)
    assert_found(speech_in(cut), (0.0, later(-3.0)[1]))
    assert gaps == []


def test_times_of_a_transport_stream_may_wrap_in_the_midst_of_a_sentence(tmp_path: Path) -> None:
    """They have 33 bits: 26.5 hours."""
    wrap_seconds = 2**33 / 90_000
    windows, gaps = read(write_sound(tmp_path / "a.ts", [SPOKEN], codec="mp2", shift_seconds=wrap_seconds - 4))
    assert_found(speech_in(windows), SPAN)
    assert gaps == []


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv", ".ts"])
def test_a_hole_in_the_sound_is_named_and_both_sides_keep_their_times(tmp_path: Path, ending: str) -> None:
    """From the midst of the first of two sentences to that of the second."""
    both, second = np.concatenate([SPOKEN, SPOKEN]), later(len(SPOKEN) / RATE)
    path = write_film(tmp_path / f"a{ending}", 19.0, both, holes=[(5.0, 14.0)])
    windows, (gap,) = read(path)
    assert gap.reason == "sound-missing: the track holds no sound here"
    assert [gap.start_seconds, gap.end_seconds] == pytest.approx([5.0, 14.0], abs=0.2)
    assert_found(speech_in(windows), (SPAN[0], gap.start_seconds), (gap.end_seconds, second[1]))


def test_a_sound_track_without_any_sound_is_one_gap(tmp_path: Path) -> None:
    windows, (gap,) = read(write_film(tmp_path / "a.mkv", 4.0, sound=NOTHING[:0]))
    assert windows == []
    assert [gap.start_seconds, gap.end_seconds] == pytest.approx([0.0, 4.0], abs=0.3)


# --- languages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ["zxx", "qaa", "mul", "mis", "und", "xx", "tlh-Latn", "not a language", "日本語"])
def test_whatever_a_track_says_of_its_language_its_speech_is_found(tmp_path: Path, tag: str) -> None:
    path = write_film(tmp_path / "a.mkv", 9.0, language=tag)
    media = info(path)
    assert media.audio is not None
    assert media.audio.language == (None if tag == "und" else tag)
    assert choose_track(media.captions, SpeechOptions(caption_language=tag)) is None
    windows, gaps = read(path)
    assert_found(speech_in(windows), SPAN)
    assert gaps == []


# --- a real voice -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(READER is None, reason="the developers' media are not here")
def test_of_a_real_voice_little_is_lost_whatever_was_done_to_it(tmp_path: Path) -> None:
    assert READER is not None
    chunks = read_audio(os.fsencode(READER), info(READER), DecodeOptions())
    voice = np.concatenate([chunk.samples for chunk in chunks if isinstance(chunk, AudioChunk)])
    silence = np.zeros_like(voice)
    narrow = telephone(voice, RATE)[::2]
    files = [
        write_sound(tmp_path / "clipped.mka", [np.clip(voice * 30, -1, 1)]),
        write_sound(tmp_path / "phone.wav", [narrow], 8_000, codec="pcm_mulaw"),
        write_sound(tmp_path / "left.mka", [voice, silence], layout="stereo"),
        write_sound(tmp_path / "opposite.mka", [voice, -voice], layout="stereo"),
        write_sound(tmp_path / "centre.flac", surround("FC", voice), layout="5.1", codec="flac"),
    ]
    whole = speech_seconds(write_sound(tmp_path / "whole.mka", [voice]))
    assert whole > 25
    assert {path.name: speech_seconds(path) / whole > 0.9 for path in files} == {path.name: True for path in files}


def speech_seconds(path: Path) -> float:
    return sum(end - start for start, end in speech_in(read(path)[0]))


# --- in a whole run ---------------------------------------------------------------------------------------------------


SPEAKING = ("clipped.mka", "phone.wav", "centre.flac", "opposite.mka", "long.mp4", "late.mkv")


def test_a_run_over_odd_sound_ends_well_and_stores_all_the_speech_there_is(tmp_path: Path, tiny_models: Any) -> None:
    films = tmp_path / "films"
    films.mkdir()
    write_sound(films / "music.mka", [WORDLESS["music"]])
    write_sound(films / "silence.mka", [WORDLESS["silence"]])
    write_sound(films / "clipped.mka", [np.clip(SPOKEN * 100, -1, 1)])
    write_sound(films / "phone.wav", [telephone(sentence(8_000), 8_000)], 8_000, codec="pcm_mulaw")
    write_sound(films / "centre.flac", surround("FC", SPOKEN), layout="5.1", codec="flac")
    write_sound(films / "opposite.mka", [SPOKEN, -SPOKEN], layout="stereo")
    write_film(films / "long.mp4", 3.0, language="qaa")
    write_film(films / "late.mkv", 12.0, shift_seconds=1_234.5)
    write_film(films / "hole.mkv", 19.0, np.concatenate([SPOKEN, SPOKEN]), holes=[(8.0, 14.0)])
    settings = settings_for(tiny_models, tmp_path, "models.image=off")
    done = run_cli(["ingest", str(films), "--json"], settings)
    assert done.returncode == 0, done.stderr
    rows = {Path(row["path"]).name: row for row in json.loads(done.stdout)["videos"]}
    assert len(rows) == 9
    for name in ("music.mka", "silence.mka"):
        assert (rows[name]["status"], rows[name]["speech_seconds"], rows[name]["points"]) == ("indexed", 0.0, 0)
    for name in SPEAKING:
        assert rows[name]["speech_seconds"] == pytest.approx(SPAN[1] - SPAN[0], abs=2 * SLACK_SECONDS), name
    assert rows["hole.mkv"]["status"] == "partial"
    assert rows["hole.mkv"]["gaps"][0]["reason"].startswith("sound-missing: ")
    voices = [point["payload"] for point in stored_points(settings).values() if point["collection"] == "voices"]
    for name in (*SPEAKING, "hole.mkv"):
        assert rows[name]["voice_coverage"] == 1.0
        assert rows[name]["text_coverage"] == 1.0 or rows[name]["gaps"]  # untrained, the model may hear no word
        assert sum(Path(voice["path"]).name == name for voice in voices) == rows[name]["voice_segments"] >= 3
