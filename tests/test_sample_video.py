"""The sample video holds what it says it holds."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

from benches.sample_scenes import HEIGHT, SCENE_SECONDS, SCENES, WIDTH
from benches.sample_video import make_sample, scene_at, sentences
from benches.sample_voice import SAMPLE_RATE, VOICES, say, spoken_seconds, syllables
from stages.captions import CaptionCue, read_captions
from stages.media import probe
from stages.options import DecodeOptions, SpeechOptions
from stages.windows import SpeechWindow, read_speech_windows
from transport.messages import MediaInfo

SECONDS = 20.0


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sample(tmp_path_factory.mktemp("sample") / "it's a sample.mp4", SECONDS)


@pytest.fixture(scope="module")
def media(sample: Path) -> MediaInfo:
    return probe(os.fsencode(sample), DecodeOptions())


def test_streams_and_duration(media: MediaInfo) -> None:
    assert media.duration_seconds == pytest.approx(SECONDS, abs=0.1)
    assert media.video is not None
    assert (media.video.codec, media.video.width, media.video.height) == ("h264", WIDTH, HEIGHT)
    assert media.audio is not None
    assert (media.audio.codec, media.audio.sample_rate) == ("aac", SAMPLE_RATE)
    assert media.audio.duration_seconds == pytest.approx(SECONDS, abs=0.1)
    assert [(track.format, track.language) for track in media.captions] == [("mov_text", "eng")]


def test_captions_are_the_sentences_at_their_times(sample: Path, media: MediaInfo) -> None:
    cues = list(read_captions(os.fsencode(sample), media.captions[0], media, DecodeOptions()))
    expected = sentences(SECONDS)
    assert len(expected) == 3
    for cue, sentence in zip(cues, expected, strict=True):
        assert isinstance(cue, CaptionCue)
        assert cue.text == sentence.text
        assert (cue.start_seconds, cue.end_seconds) == pytest.approx(sentence.shown_seconds, abs=0.002)
        assert cue.start_seconds < sentence.start_seconds < sentence.end_seconds < cue.end_seconds


def test_voice_is_found_where_it_is_and_nowhere_else(sample: Path, media: MediaInfo) -> None:
    windows = read_speech_windows(os.fsencode(sample), media, DecodeOptions(), SpeechOptions(pad_ms=0))
    found = [span for window in windows if isinstance(window, SpeechWindow) for span in window.speech]
    for sentence in sentences(SECONDS):
        heard = [min(end, sentence.end_seconds) - max(start, sentence.start_seconds) for start, end in found]
        share = sum(part for part in heard if part > 0) / (sentence.end_seconds - sentence.start_seconds)
        assert share > 0.9, sentence
    spoken = sum(sentence.end_seconds - sentence.start_seconds for sentence in sentences(SECONDS))
    assert sum(end - start for start, end in found) < spoken + 0.2 * len(sentences(SECONDS))


def test_scenes_differ_by_sight(sample: Path) -> None:
    with av.open(str(sample)) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(np.int16) for frame in container.decode(video=0)]
    middles = [frames[round((number + 0.5) * len(frames) * SCENE_SECONDS / SECONDS)] for number in range(3)]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(middles[one] - middles[other]).mean() > 30


def test_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    first = make_sample(tmp_path / "1.mp4", 2.0).read_bytes()
    assert make_sample(tmp_path / "2.mp4", 2.0).read_bytes() == first
    assert make_sample(tmp_path / "3.mp4", 2.0, seed=1).read_bytes() != first


def test_captions_can_be_left_out(tmp_path: Path) -> None:
    file = make_sample(tmp_path / "bare.mp4", 1.0, captions=False)
    media = probe(os.fsencode(file), DecodeOptions())
    assert media.captions == ()
    assert media.audio is not None


def test_sentences_fit_their_scenes_and_are_not_cut() -> None:
    said = sentences(2 * len(SCENES) * SCENE_SECONDS)
    assert len(said) == 2 * len(SCENES)
    for number, sentence in enumerate(said):
        assert number * SCENE_SECONDS < sentence.start_seconds
        assert sentence.end_seconds < (number + 1) * SCENE_SECONDS - 0.6  # a pause behind each
        assert sentence.text == scene_at(sentence.start_seconds)[1].sentence
    assert {sentence.voice for sentence in said} == {0, 1}
    assert sentences(3.0) == []


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.paint.__name__)
def test_every_scene_moves_and_keeps_its_shape(scene: object) -> None:
    paint = scene.paint  # type: ignore[attr-defined]
    early, late = (paint(seconds, np.random.default_rng(0)) for seconds in (0.0, 4.0))
    assert early.shape == late.shape == (HEIGHT, WIDTH, 3)
    assert early.dtype == np.uint8
    assert (early != late).any(axis=2).mean() > 0.002


def test_voices_differ_in_pitch() -> None:
    for voice in VOICES:
        sound = say(SCENES[0].sentence, voice, np.random.default_rng(0))
        assert len(sound) == round(spoken_seconds(SCENES[0].sentence) * SAMPLE_RATE)
        assert np.abs(sound).max() == pytest.approx(0.5)
        middle = sound[len(sound) // 2 :][: SAMPLE_RATE // 4].astype(np.float64)
        echo = np.correlate(middle, middle, mode="full")[len(middle) :]
        lags = slice(SAMPLE_RATE // 300, SAMPLE_RATE // 80)
        pitch = SAMPLE_RATE / (lags.start + 1 + int(np.argmax(echo[lags])))
        assert pitch == pytest.approx(voice.pitch_hertz, rel=0.25)


def test_syllables_are_vowel_groups() -> None:
    assert [syllable.vowel for syllable in syllables("Boats leave")] == ["o", "e", "e"]
    assert [syllable.hissing for syllable in syllables("see me")] == [True, False]
    assert len(syllables("hm, 42!")) == 1
