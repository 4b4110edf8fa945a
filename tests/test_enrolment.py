"""Clips as voice samples: made voices through the real decoder and voice detector, and what is refused."""

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benches.sample_voice import SAMPLE_RATE as VOICE_RATE
from benches.sample_voice import VOICES, Voice, say
from engine import enrolment
from engine.config import Config, load_config
from engine.enrolment import (
    CLIPPED_SHARE,
    SAMPLE_VECTORS,
    Clip,
    clipped_share,
    hear,
    open_clip,
    sample_of,
    shares,
    voice_samples,
)
from stages.base import Pcm, Vector
from stages.profiles import unit
from tests.audio_factory import Samples, tone, write_sound
from tests.conftest import TinyModels
from tests.test_voice_profiles import people, raises_refusal, windows
from transport.codec import encode
from transport.messages import VoiceSample
from transport.requests import MAX_REQUEST_BYTES, MAX_SAMPLES, SpeakersRequest

TEXT = "the quick brown fox jumps over a lazy dog and runs along the river until the evening comes "
LOW, HIGH = VOICES
PEOPLE = dict(zip(VOICES, people(2), strict=True))


def spoken(voice: Voice, repeats: int = 2, seed: int = 1) -> Samples:
    """About 6 s of a made voice for each repeat."""
    return say(TEXT * repeats, voice, np.random.default_rng(seed))


def pause(seconds: float) -> Samples:
    return np.zeros(round(seconds * VOICE_RATE), np.float32)


def record(path: Path, *sounds: Samples, gain: float = 1.0) -> Path:
    """A sound file at VOICE_RATE; what is louder than full scale is clipped."""
    return write_sound(path, [np.clip(gain * np.concatenate(sounds), -1, 1)], rate=VOICE_RATE)


def opened(path: Path) -> Clip:
    return open_clip(os.fsencode(path), Config())


def embed(batch: Sequence[Pcm]) -> list[Vector]:
    """Stands in for the speaker model: tells low voices from high ones."""
    assert len({len(pcm) for pcm in batch}) == 1
    return [unit(windows(PEOPLE[pitch_of(pcm)], 1, seed=abs(int(pcm[1000])))[0]) for pcm in batch]


def pitch_of(pcm: Pcm) -> Voice:
    """Whose pitch it is, by autocorrelation."""
    sound = pcm.astype(np.float64)
    power = np.abs(np.fft.rfft(sound, 2 * len(sound))) ** 2
    lags = np.fft.irfft(power)[: len(sound)]
    shortest = 16_000 // 260
    period = shortest + int(np.argmax(lags[shortest : 16_000 // 80]))
    return LOW if 16_000 / period < 155 else HIGH


def sample(path: Path, said: list[str] | None = None) -> VoiceSample:
    return sample_of(opened(path), Config(), embed, (said if said is not None else []).append)


# --- a clip that is fit ---------------------------------------------------------------------------------------------


def test_a_clip_becomes_a_voice(tmp_path: Path) -> None:
    path, said = record(tmp_path / "low.wav", spoken(LOW)), list[str]()
    found = sample(path, said)
    assert found.shown_path == str(path)
    assert len(found.content) == 64
    assert 10 < found.seconds < 14
    assert 3 <= len(found.vectors) <= SAMPLE_VECTORS
    means = np.array(found.vectors).mean(axis=0)
    assert unit(means) @ PEOPLE[LOW] > 0.8
    np.testing.assert_allclose(np.linalg.norm(np.array(found.vectors), axis=1), 1, atol=1e-3)
    assert said == [f"{path}: {found.seconds:.0f} s of speech"]


def test_a_video_will_do(sample_video: Path) -> None:
    clip = opened(sample_video)
    assert clip.media.video is not None
    assert len(hear(clip, Config(), embed).vectors) > 3


def test_windows_keep_their_order_whatever_their_length(tmp_path: Path) -> None:
    parts = [part for seed in range(3) for part in (spoken(LOW, 1, seed)[: VOICE_RATE * (2 + seed)], pause(2.0))]
    batches: list[int] = []

    def measure(batch: Sequence[Pcm]) -> list[Vector]:
        batches.append(len(batch))
        return [np.full(4, len(pcm), np.float32) for pcm in batch]

    voice = hear(opened(record(tmp_path / "clip.wav", *parts)), Config(), measure)
    assert len({end - start for start, end in voice.spans}) > 1
    assert [round((end - start) * 16_000) for start, end in voice.spans] == [int(row[0]) for row in voice.vectors]
    assert all(first[0] < second[0] for first, second in pairwise(voice.spans))
    assert sum(batches) == len(voice.vectors)


def test_of_a_long_clip_the_first_part_is_used_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "MAX_SPEECH_SECONDS", 30.0)
    said: list[str] = []
    found = sample(record(tmp_path / "long.wav", spoken(LOW, 14)), said)
    assert 28 < found.seconds < 62  # whole windows of at most 30 s
    assert said[0].endswith("s of speech (only the first 0.5 minutes are used)")
    sample(record(tmp_path / "short.wav", spoken(LOW, 5)), said)
    assert said[1].endswith("31 s of speech")


def test_many_windows_become_a_few_vectors() -> None:
    [anna] = people(1)
    rows = windows(anna, 400, seed=3)
    few = np.array(shares(rows))
    assert few.shape == (SAMPLE_VECTORS, 192)
    assert unit(few.sum(axis=0)) @ unit(rows.sum(axis=0)) > 0.9999
    np.testing.assert_allclose(np.array(shares(rows[:3])), rows[:3], atol=1e-3)


def test_the_largest_enrolment_fits_a_request() -> None:
    [anna] = people(1)
    vectors = shares(windows(anna, 400, seed=3))
    long_path = "/" + "ü" * 2000  # 4,001 bytes
    samples = tuple(
        VoiceSample(content="f" * 64, shown_path=long_path, seconds=599.99, vectors=vectors) for _ in range(MAX_SAMPLES)
    )
    request = SpeakersRequest(action="enroll", model="m" * 200, name="x" * 200, samples=samples, now=1.79e9)
    assert len(encode(request)) == pytest.approx(1_018_000, rel=0.01)
    assert len(encode(request)) < MAX_REQUEST_BYTES


# --- a clip that is not ---------------------------------------------------------------------------------------------


def test_too_little_speech_is_refused(tmp_path: Path) -> None:
    path = record(tmp_path / "short.wav", spoken(LOW, 1)[: 4 * VOICE_RATE], pause(8.0))
    with raises_refusal("clip-too-short", str(path), "4.", "5 s", "voice.enroll_min_seconds"):
        sample(path)


def test_words_too_short_for_a_window_do_not_count(tmp_path: Path) -> None:
    word = np.concatenate((spoken(LOW, 1)[: round(0.4 * VOICE_RATE)], pause(1.5)))
    path = record(tmp_path / "words.wav", *[word] * 12)
    with raises_refusal("clip-too-short", "0.0 s of speech in pieces of 1 s"):
        sample(path)


@pytest.mark.parametrize("sound", ["silence", "tone"])
def test_a_clip_without_speech_is_refused(tmp_path: Path, sound: str) -> None:
    made = pause(10.0) if sound == "silence" else tone(10.0, VOICE_RATE)
    path = record(tmp_path / "clip.wav", made)
    with raises_refusal("clip-no-speech", str(path)):
        sample(path)


def test_a_clip_without_sound_is_refused(tmp_path: Path, sample_video: Path) -> None:
    import av

    path = tmp_path / "mute.mp4"
    with av.open(str(sample_video)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with raises_refusal("clip-no-sound", str(path)):
        opened(path)


def test_two_people_in_one_clip_are_refused(tmp_path: Path) -> None:
    path = record(tmp_path / "both.wav", spoken(LOW, 2), pause(0.6), spoken(HIGH, 2))
    with raises_refusal("clip-two-voices", str(path), "2 people", "cut it"):
        sample(path)


def test_a_word_thrown_in_is_no_second_voice(tmp_path: Path) -> None:
    word = spoken(HIGH, 1)[: round(1.1 * VOICE_RATE)]
    path = record(tmp_path / "mostly.wav", spoken(LOW, 4), pause(0.6), word)
    assert unit(np.array(sample(path).vectors).mean(axis=0)) @ PEOPLE[LOW] > 0.8


def test_heavily_clipped_speech_is_refused(tmp_path: Path) -> None:
    loud = record(tmp_path / "loud.wav", spoken(LOW), gain=12.0)
    with raises_refusal("clip-clipped", str(loud), "%", "too loud"):
        sample(loud)
    assert sample(record(tmp_path / "fine.wav", spoken(LOW), gain=1.9)).vectors


def test_clipping_shows_in_the_loudest_samples() -> None:
    loudness = np.abs(np.random.default_rng(0).laplace(0, 2000, 160_000)).astype(np.int64)  # speech is as peaked
    levels = np.bincount(np.minimum(loudness, 32_767), minlength=32_769)
    assert clipped_share(levels) < 1e-4
    assert clipped_share(np.bincount(np.minimum(loudness, 4000), minlength=32_769)) == pytest.approx(0.14, abs=0.01)
    assert clipped_share(np.bincount([0] * 10, minlength=32_769)) == 0.0
    assert 1e-4 < CLIPPED_SHARE < 0.14


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("missing.wav", None, "clip-not-found"),
        ("empty.wav", b"", "clip-empty-file"),
        ("text.wav", b"just some words, no sound\n" * 50, "clip-not-media"),
        ("cut.mp4", b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "clip-broken-header"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, code: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with raises_refusal(code, str(path)) as caught:
        opened(path)
    assert "\n" not in caught.value.message


def test_a_directory_and_a_name_of_odd_bytes_are_named(tmp_path: Path) -> None:
    with raises_refusal("clip-not-a-file", str(tmp_path)):
        opened(tmp_path)
    with raises_refusal("clip-not-found", "\\xff"):
        open_clip(os.fsencode(tmp_path) + b"/\xff.wav", Config())


def test_a_file_that_goes_away_while_it_is_read_is_named(tmp_path: Path) -> None:
    clip = opened(record(tmp_path / "low.wav", spoken(LOW)))
    (tmp_path / "low.wav").unlink()
    with raises_refusal("clip-not-found", clip.shown_path):
        hear(clip, Config(), embed)


def test_relative_names_are_kept_as_absolute_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(tmp_path / "low.wav", spoken(LOW, 1))
    monkeypatch.chdir(tmp_path)
    assert opened(Path("low.wav")).shown_path == f"{tmp_path}/low.wav"


# --- with a model ---------------------------------------------------------------------------------------------------


def settings(tiny_models: TinyModels) -> Config:
    return load_config(settings=[f"models.voice={tiny_models['ecapa']}"])


def test_clips_are_embedded_by_the_voice_model(tmp_path: Path, tiny_models: TinyModels) -> None:
    config, said = settings(tiny_models), list[str]()
    paths = [record(tmp_path / f"{seed}.wav", spoken(LOW, 2, seed)) for seed in range(2)]
    first, second = voice_samples(config, [os.fsencode(path) for path in paths], said.append)
    assert (first.shown_path, second.shown_path) == (str(paths[0]), str(paths[1]))
    assert first.content != second.content
    assert {len(row) for row in first.vectors} == {192}
    assert len(said) == 2


def test_a_bad_name_is_found_before_the_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "load", lambda *arguments: pytest.fail("loaded"))
    path = record(tmp_path / "low.wav", spoken(LOW))
    with raises_refusal("clip-not-found"):
        voice_samples(Config(), [os.fsencode(path), os.fsencode(tmp_path / "nothing.wav")], print)
    with raises_refusal("clip-too-many", f"{MAX_SAMPLES}"):
        voice_samples(Config(), [b"x"] * (MAX_SAMPLES + 1), print)
