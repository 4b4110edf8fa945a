"""The speaker embedder on a tiny ECAPA-TDNN, against speechbrain's own classes and its own loader."""

import os
import pickle
import shutil
import sys
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.base import Identity, Pcm, Vectors
from stages.errors import ModelError
from stages.lanes import Lanes
from stages.speaker_model import Architecture, SpeakerModel, build_network, prepare_speechbrain, read_architecture
from stages.tiny_voice import Sizes, build_tiny_ecapa, hyperparams
from tests.conftest import TinyModels

IDENTITY = Identity("tiny-ecapa", "0123456789ab", True)
REAL = Architecture(80, (1024, 1024, 1024, 1024, 3072), (5, 3, 3, 3, 1), (1, 2, 3, 4, 1), 128, 192)


def voices(count: int, seconds: float = 3.0) -> list[Pcm]:
    """Buzzes of different pitch, over noise."""
    rng = np.random.default_rng(count)
    samples = round(seconds * 16000)
    phases = [2 * np.pi * pitch * np.arange(samples) / 16000 for pitch in rng.uniform(80, 260, count)]
    buzzes = [sum(np.sin(k * phase) / k for k in range(1, 20)) for phase in phases]
    return [np.asarray(4000 * buzz + 300 * rng.standard_normal(samples)).astype(np.int16) for buzz in buzzes]


@pytest.fixture(scope="module")
def path(tiny_models: TinyModels) -> Path:
    return tiny_models["ecapa"]


@pytest.fixture(scope="module")
def model(path: Path) -> SpeakerModel:
    return SpeakerModel.load(path, IDENTITY)


@pytest.fixture
def spoilt(path: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(path, tmp_path / "ecapa"))


def waveforms(batch: list[Pcm]) -> torch.Tensor:
    return torch.from_numpy(np.stack(batch).astype(np.float32) / 32768)


def unit(embeddings: torch.Tensor) -> Vectors:
    return np.asarray(torch.nn.functional.normalize(embeddings.squeeze(1), dim=-1).numpy())


def refusal(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        SpeakerModel.load(path, IDENTITY)
    assert "\n" not in caught.value.message
    return caught.value


# --- vectors --------------------------------------------------------------------------------------------------------


def test_vectors_are_those_of_speechbrains_modules(model: SpeakerModel, path: Path) -> None:
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    from speechbrain.processing.features import InputNormalization

    network = ECAPA_TDNN(80, channels=[64, 64, 64, 64, 192], attention_channels=32, lin_neurons=192)
    network.load_state_dict(torch.load(path / "embedding_model.ckpt", weights_only=True))
    batch = voices(3)
    with torch.no_grad():
        whole = torch.ones(3)
        features = InputNormalization(norm_type="sentence", std_norm=False)(Fbank(n_mels=80)(waveforms(batch)), whole)
        theirs = unit(network.eval()(features, whole))
    np.testing.assert_allclose(np.stack(model.run(batch)), theirs, atol=1e-6)


def test_vectors_are_those_of_speechbrains_loader(model: SpeakerModel, spoilt: Path, tmp_path: Path) -> None:
    from speechbrain.inference.classifiers import EncoderClassifier
    from speechbrain.utils.fetching import LocalStrategy

    text = (spoilt / "hyperparams.yaml").read_text().replace("pretrained_path: .", f"pretrained_path: {spoilt}")
    (spoilt / "hyperparams.yaml").write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what speechbrain and HyperPyYAML use
        classifier = EncoderClassifier.from_hparams(
            source=str(spoilt), savedir=str(tmp_path / "saved"), local_strategy=LocalStrategy.COPY
        )
    prepare_speechbrain()  # the loader has left more in sys.modules
    batch = voices(4)
    with torch.no_grad():
        theirs = unit(classifier.encode_batch(waveforms(batch)))
    np.testing.assert_allclose(np.stack(model.run(batch)), theirs, atol=1e-6)


@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_a_window_comes_out_of_a_batch_as_it_does_alone(model: SpeakerModel, seconds: float) -> None:
    batch = voices(5, seconds)
    together = np.stack(model.run(batch))
    np.testing.assert_allclose(together, np.stack([model.run([window])[0] for window in batch]), atol=1e-6)
    assert together.shape == (5, 192)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert len(np.unique(together, axis=0)) == 5


def test_silence_has_a_vector(model: SpeakerModel) -> None:
    [vector] = model.run([np.zeros(48000, np.int16)])
    assert np.isfinite(vector).all()


def test_windows_of_different_lengths_are_refused(model: SpeakerModel) -> None:
    with pytest.raises(ValueError, match=r"different lengths: \[16000, 48000\]"):
        model.run([*voices(1, 3.0), *voices(1, 1.0)])


def test_nothing_gives_nothing(model: SpeakerModel) -> None:
    assert model.run([]) == []


def test_what_the_scheduler_asks(model: SpeakerModel) -> None:
    [window] = voices(1, 1.5)
    assert (model.length_of(window), model.bytes_of(window)) == (24000, 48000)
    assert (model.info.role, model.info.dimension, model.info.untrained) == ("voice", 192, True)


def test_an_unloaded_model_is_gone(path: Path) -> None:
    model = SpeakerModel.load(path, IDENTITY)
    weight = weakref.ref(next(model._weights.module.parameters()))
    model.unload()
    assert weight() is None
    with pytest.raises(RuntimeError, match="parked"):
        model.run(voices(1))


def test_what_the_budget_asks(model: SpeakerModel, path: Path) -> None:
    assert (model.precision, model.outside_torch, model.probe_length) == ("float32", False, 48000)
    assert SpeakerModel.load(path, IDENTITY, probe_samples=32000).probe_length == 32000


def test_a_probe_runs_windows_of_the_length_it_names(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SpeakerModel.load(path, IDENTITY, probe_samples=16000, lanes=Lanes(1))
    shapes: list[tuple[int, ...]] = []
    embed = model._embed

    def record(sound: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(sound.shape))
        return embed(sound)

    monkeypatch.setattr(model, "_embed", record)
    model.probe(3)
    assert shapes == [(3, 16000)]


def test_a_parked_model_comes_back_the_same(path: Path) -> None:
    model = SpeakerModel.load(path, IDENTITY)
    windows = voices(3)
    before = np.stack(model.run(windows))
    for keep in (True, False, True, False):
        model.park(keep)
        for use in (lambda: model.run(windows), lambda: model.probe(1)):
            with pytest.raises(RuntimeError, match="parked"):
                use()
        model.restore()
        np.testing.assert_array_equal(np.stack(model.run(windows)), before)


def test_speechbrain_leaves_no_module_that_fails_when_looked_at(model: SpeakerModel) -> None:
    assert "speechbrain" in sys.modules
    for module in list(sys.modules.values()):
        getattr(module, "an_attribute_of_no_module", None)


# --- files ----------------------------------------------------------------------------------------------------------


def real_hyperparams() -> str:
    """The numbers of speechbrain/spkrec-ecapa-voxceleb."""
    return hyperparams(Sizes(channels=1024, last_channels=3072, attention_channels=128))


def test_the_real_models_hyperparams_are_understood(tmp_path: Path) -> None:
    (tmp_path / "hyperparams.yaml").write_text(real_hyperparams())
    assert read_architecture(tmp_path / "hyperparams.yaml") == REAL


def test_the_real_models_size() -> None:
    weights = sum(weight.numel() for weight in build_network(REAL).parameters())
    assert 20.7e6 < weights < 20.9e6  # 20.8 million, as published


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("ECAPA_TDNN.ECAPA_TDNN", "Xvector.Xvector", "Xvector"),
        ("    dilations: [1, 2, 3, 4, 1]\n", "", "dilations"),
        ("    lin_neurons: 192", "    lin_neurons: 192\n    res2net_scale: 4", "unknown settings: res2net_scale"),
        ("lin_neurons: 192", "lin_neurons: many", "many"),
        ("embedding_model: !new", "other_model: !new", "embedding_model"),
        ("n_mels: 80", "n_mels: [", "ParserError"),
        ("n_mels: 80", "bands: 80", "n_mels"),
    ],
)
def test_other_hyperparams_are_refused(spoilt: Path, old: str, new: str, reason: str) -> None:
    text = (spoilt / "hyperparams.yaml").read_text()
    assert old in text
    (spoilt / "hyperparams.yaml").write_text(text.replace(old, new))
    error = refusal(spoilt)
    assert error.code == "model-wrong-kind"
    assert reason in error.message


@pytest.mark.parametrize("text", ["", "just words", "- a\n- list\n", "embedding_model: 3\n"])
def test_a_file_that_is_no_hyperparams_is_refused(spoilt: Path, text: str) -> None:
    (spoilt / "hyperparams.yaml").write_text(text)
    assert refusal(spoilt).code == "model-wrong-kind"


def test_code_in_hyperparams_is_not_run(spoilt: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    harm = f"harm: !apply:os.mkdir [{trace}]\nmore: !!python/object/apply:os.mkdir [{trace}]\n"
    with (spoilt / "hyperparams.yaml").open("a") as file:
        file.write(harm)
    assert SpeakerModel.load(spoilt, IDENTITY).run(voices(1))
    assert not trace.exists()


class Harm:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_in_weights_is_not_run(spoilt: Path, tmp_path: Path) -> None:
    torch.save({"fc.conv.weight": Harm(tmp_path / "trace")}, spoilt / "embedding_model.ckpt")
    assert refusal(spoilt).code == "model-load-failed"
    (spoilt / "embedding_model.ckpt").write_bytes(pickle.dumps(Harm(tmp_path / "trace"), protocol=2))
    assert refusal(spoilt).code == "model-load-failed"
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("kept", [0, 100, 500_000])
def test_cut_off_weights_are_refused(spoilt: Path, kept: int) -> None:
    weights = (spoilt / "embedding_model.ckpt").read_bytes()
    (spoilt / "embedding_model.ckpt").write_bytes(weights[:kept])
    error = refusal(spoilt)
    assert error.code == "model-load-failed"
    assert "fetch the model again" in error.message


def test_weights_of_another_size_are_refused(spoilt: Path) -> None:
    (spoilt / "hyperparams.yaml").write_text(real_hyperparams())
    assert refusal(spoilt).code == "model-load-failed"


def test_lacking_weights_are_refused(spoilt: Path) -> None:
    (spoilt / "embedding_model.ckpt").unlink()
    assert refusal(spoilt).code == "model-load-failed"


def test_the_same_seed_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    build_tiny_ecapa(tmp_path / "same", seed=0)
    build_tiny_ecapa(tmp_path / "other", seed=1)
    for file in (tmp_path / "same").iterdir():
        assert file.read_bytes() == (path / file.name).read_bytes()
    other = (tmp_path / "other" / "embedding_model.ckpt").read_bytes()
    assert other != (path / "embedding_model.ckpt").read_bytes()
