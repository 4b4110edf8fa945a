"""The speech model on tiny Whispers: against faster-whisper itself, and windows in a batch against the same alone."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import ctranslate2
import numpy as np
import pytest

from stages.base import SpeechInput
from stages.ctranslate2_model import Weights, choose_compute_type, split_device
from stages.errors import ModelError
from stages.lanes import Lanes
from stages.model_files import Files
from stages.options import SpeechOptions
from stages.phrases import PHRASE_MAX_SECONDS
from stages.speech_model import LONGEST_TEXT, SpeechModel
from stages.tiny_speech import build_tiny_whisper
from tests.conftest import TinyModels
from tests.whispers import Recorder, load, refusal, said, sound

MEDIA = Path(__file__).parents[2] / "shared" / "media"
JFK = MEDIA / "jfk-inaugural-speech_over-coffee-pour_hevc-main10-ac3.ts"


@pytest.fixture(scope="module")
def path(tiny_models: TinyModels) -> Path:
    return tiny_models["whisper"]


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[SpeechModel]:
    model = load(path)
    yield model
    model.unload()


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An English-only Whisper."""
    path = tmp_path_factory.mktemp("english")
    build_tiny_whisper(path, multilingual=False)
    return path


@pytest.fixture
def spoilt(path: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(path, tmp_path / "whisper"))


# --- what a batch gives ---------------------------------------------------------------------------------------------


def test_windows_of_many_lengths_and_languages_come_out_of_a_batch_as_they_do_alone(model: SpeechModel) -> None:
    lengths = (30.0, 0.3, 12.34567, 5.0, 5.0, 21.0)
    languages = (None, "fr", None, "de", "zh", "en")
    batch = [SpeechInput(sound(s, seed), code) for seed, (s, code) in enumerate(zip(lengths, languages, strict=True))]
    together = model.run(batch)
    alone = [model.run([item])[0] for item in batch]
    assert [said(transcript) for transcript in together] == [said(transcript) for transcript in alone]
    assert [t.language for t in together] == [t.language for t in alone]
    assert [t.language_probability for t in together] == pytest.approx(
        [t.language_probability for t in alone], abs=1e-4
    )
    assert [t.language for t in together if t.language_probability == 1.0] == ["fr", "de", "zh", "en"]


def test_windows_of_one_length_come_out_of_a_batch_as_they_do_alone(model: SpeechModel) -> None:
    batch = [SpeechInput(sound(10, seed)[: 16000 * 10], "en") for seed in range(3)]
    batch += [SpeechInput(np.concatenate([sound(4, 9), np.zeros(16000 * 6, np.int16)]), "en")]
    assert [said(t) for t in model.run(batch)] == [said(model.run([item])[0]) for item in batch]


def test_text_and_figures_are_those_of_faster_whisper(model: SpeechModel, path: Path) -> None:
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    pcm = sound(14)
    pipeline = BatchedInferencePipeline(WhisperModel(str(path), compute_type="float32", cpu_threads=1))
    segments, _ = pipeline.transcribe(
        pcm.astype(np.float32) / 32768, language="en", beam_size=1, vad_filter=False, word_timestamps=True
    )
    [theirs] = segments
    [ours] = model.run([SpeechInput(pcm, "en")])
    assert " ".join(segment.text for segment in ours.segments) == theirs.text.strip()
    words = [word for segment in ours.segments for word in segment.words]
    assert [word.text for word in words] == [word.word.strip() for word in theirs.words]
    assert [word.start_seconds for word in words[1:]] == pytest.approx(
        [word.start for word in theirs.words[1:]], abs=0.02
    )
    assert ours.segments[0].average_logprob == pytest.approx(theirs.avg_logprob, abs=1e-3)
    assert ours.segments[0].no_speech_probability == pytest.approx(theirs.no_speech_prob, abs=1e-6)
    assert ours.segments[0].compression_ratio == pytest.approx(theirs.compression_ratio, abs=0.05)


def test_languages_are_heard_as_faster_whisper_hears_them(model: SpeechModel, path: Path) -> None:
    from faster_whisper import WhisperModel

    theirs = WhisperModel(str(path), compute_type="float32", cpu_threads=1)
    pcms = [sound(6, seed) for seed in range(3)]
    heard = [theirs.detect_language(pcm.astype(np.float32) / 32768) for pcm in pcms]
    ours = model.run([SpeechInput(pcm, None) for pcm in pcms])
    assert [transcript.language for transcript in ours] == [language for language, _, _ in heard]
    assert [t.language_probability for t in ours] == pytest.approx(
        [probability for _, probability, _ in heard], abs=0.02
    )


@pytest.mark.parametrize("seconds", [0.01, 0.5, 3.0, 30.0])
def test_phrases_lie_in_the_window_and_hold_all_words(model: SpeechModel, seconds: float) -> None:
    window = SpeechInput(sound(seconds), "en")
    [transcript] = model.run([window])
    assert transcript.segments
    for segment in transcript.segments:
        assert 0 <= segment.start_seconds < segment.end_seconds <= seconds
        assert segment.end_seconds - segment.start_seconds <= PHRASE_MAX_SECONDS
        assert " ".join(word.text for word in segment.words) == segment.text
        assert all(0 <= word.start_seconds <= word.end_seconds <= seconds for word in segment.words)
        assert segment.average_logprob < 0 < segment.compression_ratio


def test_a_window_without_words_is_empty_and_harms_no_neighbour(spoilt: Path) -> None:
    config = json.loads((spoilt / "config.json").read_text())
    config["suppress_ids_begin"] = []  # allow the end as the first token
    (spoilt / "config.json").write_text(json.dumps(config))
    model = load(spoilt)
    blip, speech = SpeechInput(sound(0.005), "en"), SpeechInput(sound(4), "en")
    transcripts = model.run([blip, speech, blip])
    assert [len(transcript.segments) for transcript in transcripts] == [0, 1, 0]
    assert said(transcripts[1]) == said(model.run([speech])[0])


def test_silence_and_full_scale_noise_run(model: SpeechModel) -> None:
    noise = np.random.default_rng(0).integers(-32768, 32768, 80000).astype(np.int16)
    transcripts = model.run([SpeechInput(np.zeros(80000, np.int16), None), SpeechInput(noise, None)])
    figures = [segment.average_logprob for transcript in transcripts for segment in transcript.segments]
    assert figures
    assert np.isfinite(figures).all()


@pytest.mark.parametrize("samples", [0, 30 * 16000 + 1])
def test_a_window_that_whisper_cannot_take_is_refused(model: SpeechModel, samples: int) -> None:
    with pytest.raises(ValueError, match=f"not {samples}"):
        model.run([SpeechInput(np.zeros(samples, np.int16), None)])


def test_nothing_gives_nothing(model: SpeechModel) -> None:
    assert model.run([]) == []


def test_what_the_scheduler_asks(model: SpeechModel) -> None:
    item = SpeechInput(sound(2), None)
    assert (model.bytes_of(item), model.length_of(item)) == (64000, model.length_of(SpeechInput(sound(1), None)))
    assert (model.info.role, model.info.dimension, model.info.label) == (
        "speech",
        0,
        "tiny-whisper@0123456789ab (untrained)",
    )


# --- settings -------------------------------------------------------------------------------------------------------


def test_the_set_language_serves_windows_that_bring_none(path: Path) -> None:
    model = load(path, options=SpeechOptions(language="it"))
    transcripts = model.run([SpeechInput(sound(2), None), SpeechInput(sound(2), "fr")])
    assert [(t.language, t.language_probability) for t in transcripts] == [("it", 1.0), ("fr", 1.0)]


def test_a_language_that_whisper_does_not_know_is_heard_instead(model: SpeechModel) -> None:
    heard, unknown = model.run([SpeechInput(sound(3), None), SpeechInput(sound(3), "tlh")])
    assert unknown.language == heard.language
    assert unknown.language_probability < 1


def test_beams_are_searched(path: Path) -> None:
    window = SpeechInput(sound(5), "en")
    [greedy] = load(path).run([window])
    [searched] = load(path, options=SpeechOptions(beam_size=3)).run([window])
    assert searched.segments[0].average_logprob >= greedy.segments[0].average_logprob - 1e-3


def test_an_english_model_hears_only_english(english: Path) -> None:
    model = load(english)
    transcripts = model.run([SpeechInput(sound(4), None), SpeechInput(sound(4), "fr")])
    assert [(t.language, t.language_probability) for t in transcripts] == [("en", 1.0)] * 2
    assert said(transcripts[0]) == said(transcripts[1]) != []


def test_auto_is_int8_on_the_cpu_and_runs(path: Path) -> None:
    model = load(path, dtype="auto")
    assert model._whisper.model.compute_type == "int8_float32"
    assert model.run([SpeechInput(sound(3), "en")])[0].segments


@pytest.mark.parametrize(
    ("dtype", "device", "supported", "chosen"),
    [
        ("auto", "cuda:0", {"float16", "int8", "float32"}, "float16"),
        ("auto", "cuda:0", {"int8", "float32"}, "float32"),
        ("auto", "cpu", {"int8", "float32"}, "int8"),
        ("auto", "cpu", {"float32"}, "float32"),
        ("int8", "cuda", {"int8", "float32"}, "int8"),
    ],
)
def test_compute_types(dtype: str, device: str, supported: set[str], chosen: str) -> None:
    assert choose_compute_type(dtype, device, supported) == chosen


def test_devices() -> None:
    assert [split_device(name) for name in ("cpu", "cuda", "cuda:3")] == [("cpu", 0), ("cuda", 0), ("cuda", 3)]


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_type_that_the_device_lacks_is_refused(path: Path) -> None:
    error = refusal(path, dtype="float64")
    assert error.code == "model-dtype"
    assert 'models.speech_dtype = "float64": cpu supports auto, float32, int8' in error.message


@pytest.mark.skipif(ctranslate2.get_cuda_device_count() > 0, reason="there is a CUDA device")
def test_an_absent_device_is_refused(path: Path) -> None:
    error = refusal(path, device="cuda:0")
    assert error.code == "model-dtype"
    assert "cuda:0" in error.message


def test_a_directory_without_tokenizer_is_refused_without_asking_the_hub(spoilt: Path, no_network: None) -> None:
    (spoilt / "tokenizer.json").unlink()
    error = refusal(spoilt)
    assert error.code == "model-wrong-kind"
    assert "tokenizer.json is missing" in error.message


def test_a_tokenizer_of_another_model_is_refused(spoilt: Path, tiny_models: TinyModels) -> None:
    tokens = json.loads((spoilt / "tokenizer.json").read_text())
    tokens["added_tokens"] = [entry for entry in tokens["added_tokens"] if entry["content"] != "<|transcribe|>"]
    (spoilt / "tokenizer.json").write_text(json.dumps(tokens))
    assert refusal(spoilt).code == "model-wrong-kind"
    (spoilt / "tokenizer.json").write_text("[]")
    assert refusal(spoilt).code == "model-wrong-kind"


def test_cut_off_weights_are_refused(spoilt: Path) -> None:
    weights = (spoilt / "model.bin").read_bytes()
    (spoilt / "model.bin").write_bytes(weights[: len(weights) // 2])
    error = refusal(spoilt)
    assert error.code == "model-load-failed"
    assert str(spoilt) in error.message


def test_features_of_another_model_are_refused(spoilt: Path) -> None:
    (spoilt / "preprocessor_config.json").write_text(json.dumps({"feature_size": 128}))
    error = refusal(spoilt)
    assert error.code == "model-load-failed"
    assert "80 mel bands, not 128" in error.message


def test_a_set_language_that_the_model_lacks_is_refused(path: Path, english: Path) -> None:
    assert 'speech.language = "yue"' in refusal(path, options=SpeechOptions(language="yue")).message
    assert refusal(english, options=SpeechOptions(language="de")).code == "model-language"


# --- life and death -------------------------------------------------------------------------------------------------


def loaded(model: SpeechModel) -> bool:
    """What CTranslate2 says."""
    return bool(model._whisper.model.model_is_loaded)


def test_unloading_right_after_a_batch_works(path: Path) -> None:
    model = load(path)
    model.run([SpeechInput(sound(1), "en")])
    model.unload()
    assert not loaded(model)
    with pytest.raises(RuntimeError, match="parked"):
        model.run([SpeechInput(sound(1), "en")])


def test_a_parked_model_comes_back_the_same(path: Path) -> None:
    model = load(path)
    window = SpeechInput(sound(4), None)
    before = model.run([window])
    for keep in (True, False, True, True, False, False):
        model.park(keep)
        with pytest.raises(RuntimeError, match="parked"):
            model.run([window])
        with pytest.raises(RuntimeError, match="parked"):
            model.probe(1)
        model.restore()
        assert loaded(model)
        assert model.run([window]) == before


def test_weights_that_are_dropped_are_unloaded_and_those_kept_on_the_cpu_stay(path: Path) -> None:
    model = load(path)
    model.park(keep=True)
    assert loaded(model)
    model.park(keep=False)
    assert not loaded(model)
    model.park(keep=True)  # there is nothing to keep
    assert not loaded(model)
    model.restore()
    assert loaded(model)
    model.restore()
    assert model.run([SpeechInput(sound(1), "en")])[0].segments


def test_a_restore_that_fails_leaves_it_parked_and_a_later_one_works(spoilt: Path) -> None:
    model = load(spoilt)
    window = SpeechInput(sound(3), "en")
    before = model.run([window])
    model.park(keep=False)
    weights = spoilt / "model.bin"
    weights.rename(spoilt / "away")
    with pytest.raises(ModelError) as error:
        model.restore()
    assert error.value.code == "model-changed"
    with pytest.raises(RuntimeError, match="parked"):
        model.run([window])
    (spoilt / "away").rename(weights)
    model.restore()
    assert model.run([window]) == before


def test_other_weights_in_the_same_place_are_not_taken_for_the_old_ones(spoilt: Path) -> None:
    model = load(spoilt)
    model.park(keep=False)
    build_tiny_whisper(spoilt, seed=1)
    with pytest.raises(ModelError, match="has changed since the model was loaded") as error:
        model.restore()
    assert error.value.code == "model-changed"


class Engine:
    """CTranslate2's behaviour on CUDA. `busy`: requests that it ignores before it unloads."""

    device = "cuda"
    compute_type = "float16"

    def __init__(self, busy: int = 0, host_error: Exception | None = None) -> None:
        self.busy = busy
        self.host_error = host_error  # of the copy to host memory; what was on the device is gone then
        self.device_error: Exception | None = None
        self.model_is_loaded = True
        self.on_device = True
        self.copied = 0
        self.cached = False

    def unload_model(self, to_cpu: bool = False) -> None:
        if self.busy:
            self.busy -= 1
            return
        on_device, self.on_device = self.on_device, False
        if to_cpu and not self.cached and on_device:
            if self.host_error is not None:
                raise self.host_error
            self.copied += 1
            self.cached = True
        elif not to_cpu:
            self.cached = False
        self.model_is_loaded = False

    def load_model(self, keep_cache: bool = False) -> None:
        if self.device_error is not None:
            raise self.device_error
        self.cached = self.cached and keep_cache
        self.model_is_loaded = self.on_device = True


def weights_of(engine: Engine, path: Path) -> Weights:
    return Weights(engine, Files("speech", path))


@pytest.mark.parametrize("keep", [True, False])
def test_a_request_to_unload_that_is_ignored_is_made_again(path: Path, keep: bool) -> None:
    engine = Engine(busy=7)
    weights_of(engine, path).park(keep)
    assert (engine.on_device, engine.cached, engine.busy) == (False, keep, 0)


def test_a_model_that_stays_loaded_is_reported_and_still_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.ctranslate2_model.UNLOAD_SECONDS", 0.02)
    weights = weights_of(Engine(busy=1000), path)
    with pytest.raises(RuntimeError, match="did not unload"):
        weights.park(keep=True)
    weights.check_on_device()


def test_the_copy_in_host_memory_is_made_once(path: Path) -> None:
    engine = Engine()
    weights = weights_of(engine, path)
    for _ in range(3):
        weights.park(keep=True)
        weights.restore()
    assert (engine.copied, engine.cached, engine.on_device) == (1, True, True)
    weights.park(keep=False)
    assert not engine.cached


@pytest.mark.parametrize("error", [RuntimeError("failed to allocate"), MemoryError("std::bad_alloc")])
def test_where_host_memory_has_no_room_the_weights_are_dropped(path: Path, error: Exception) -> None:
    engine = Engine(host_error=error)
    weights = weights_of(engine, path)
    weights.park(keep=True)
    assert (engine.on_device, engine.cached, engine.model_is_loaded) == (False, False, False)
    weights.restore()
    assert engine.on_device


def test_a_device_without_room_leaves_the_model_parked(path: Path) -> None:
    engine = Engine()
    weights = weights_of(engine, path)
    weights.park(keep=True)
    engine.device_error = RuntimeError("CUDA failed with error out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        weights.restore()
    with pytest.raises(RuntimeError, match="parked"):
        weights.check_on_device()
    assert (engine.on_device, engine.cached) == (False, True)
    engine.device_error = None
    weights.restore()
    weights.check_on_device()
    assert engine.copied == 1


# --- probing --------------------------------------------------------------------------------------------------------


def test_a_probe_decodes_the_longest_text_in_every_window_and_aligns_one(
    model: SpeechModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(model._whisper.model)
    monkeypatch.setattr(model._whisper, "model", recorder)
    model.probe(3)
    assert recorder.texts == [LONGEST_TEXT] * 3
    assert recorder.aligned == [LONGEST_TEXT]


@pytest.mark.parametrize(
    ("options", "temperature", "beams"),
    [
        (SpeechOptions(), 1.0, 1),
        (SpeechOptions(temperatures=(0.0,)), 0.0, 1),
        (SpeechOptions(temperatures=(0.0, 0.6), beam_size=3), 0.0, 3),
        (SpeechOptions(temperatures=(0.2, 0.6), beam_size=3), 0.6, 1),
    ],
)
def test_a_probe_decodes_in_the_way_that_takes_most(
    path: Path, monkeypatch: pytest.MonkeyPatch, options: SpeechOptions, temperature: float, beams: int
) -> None:
    model = load(path, options=options, lanes=Lanes(1))
    recorder = Recorder(model._whisper.model)
    monkeypatch.setattr(model._whisper, "model", recorder)
    model.probe(2)
    assert (recorder.temperatures, recorder.beams) == ([temperature], [beams])
    assert recorder.texts == [LONGEST_TEXT] * 2


def test_no_text_is_longer_than_that_of_a_probe(model: SpeechModel) -> None:
    encoded = model._encode([sound(30)])
    tokenizer = model._tokenizers["en"]
    for prompt in ([], [tokenizer.sot_prev, 11]):
        [result] = model._whisper.model.generate(
            encoded,
            [[*prompt, *tokenizer.sot_sequence, tokenizer.no_timestamps]],
            max_length=448,
            suppress_tokens=[tokenizer.eot],
        )
        assert len(result.sequences_ids[0]) <= LONGEST_TEXT


def test_an_english_model_is_probed_too(english: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(english)
    recorder = Recorder(model._whisper.model)
    monkeypatch.setattr(model._whisper, "model", recorder)
    model.probe(1)
    assert recorder.texts == [LONGEST_TEXT]


def test_what_the_budget_asks(path: Path) -> None:
    model = load(path, dtype="int8")
    assert (model.precision, model.outside_torch) == ("int8_float32", True)
    assert model.probe_length == model.length_of(SpeechInput(sound(30), None))
    model.park(keep=False)
    assert model.precision == "int8_float32"


# --- the tiny Whisper -----------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    build_tiny_whisper(tmp_path / "same", seed=0)
    build_tiny_whisper(tmp_path / "other", seed=1)
    for file in (tmp_path / "same").iterdir():
        assert file.read_bytes() == (path / file.name).read_bytes()
    assert (tmp_path / "other" / "model.bin").read_bytes() != (path / "model.bin").read_bytes()


def test_the_tiny_whisper_says_more_of_a_longer_sound_and_comes_to_an_end(model: SpeechModel) -> None:
    transcripts = model.run([SpeechInput(sound(seconds), "en") for seconds in (2, 8, 20, 30)])
    counts = [sum(len(segment.words) for segment in transcript.segments) for transcript in transcripts]
    assert counts == sorted(set(counts))
    assert 3 <= counts[0] <= 8
    assert 40 <= counts[-1] <= 80


@pytest.mark.skipif(not JFK.is_file(), reason="the developers' media are not here")
def test_real_speech_runs(model: SpeechModel) -> None:
    import av

    with av.open(str(JFK)) as container:
        resampler = av.AudioResampler("s16", "mono", 16000)
        parts = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    pcm = np.concatenate(parts)[: 30 * 16000]
    [transcript] = model.run([SpeechInput(pcm, None)])
    assert transcript.segments
    assert all(segment.end_seconds <= len(pcm) / 16000 for segment in transcript.segments)
