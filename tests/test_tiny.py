"""Building untrained models: complete or not at all, the same for the same seed, never over others' files."""

import json
from pathlib import Path

import pytest

from stages.errors import ModelError
from stages.model_files import revision
from stages.tiny import build_tiny
from tests.conftest import TinyModels


def test_building_twice_changes_nothing(tmp_path: Path) -> None:
    path = build_tiny(tmp_path, ("clip",))["clip"]
    stamp = (path / "model.safetensors").stat().st_mtime_ns
    assert build_tiny(tmp_path, ("clip",)) == {"clip": path}
    assert (path / "model.safetensors").stat().st_mtime_ns == stamp
    assert [file.name for file in tmp_path.iterdir()] == ["tiny-clip"]


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_seed_makes_a_revision(tiny_models: TinyModels, tmp_path: Path, family: str) -> None:
    first = revision("image", tiny_models[family])
    same = build_tiny(tmp_path / "same", (family,))[family]
    assert revision("image", same) == first
    other = build_tiny(tmp_path / "other", (family,), seed=1)[family]
    assert revision("image", other) != first


def test_another_seed_replaces_what_was_built(tmp_path: Path) -> None:
    path = build_tiny(tmp_path, ("clip",))["clip"]
    before = revision("image", path)
    build_tiny(tmp_path, ("clip",), seed=1)
    assert revision("image", path) != before
    assert json.loads((path / "sluice.json").read_text())["seed"] == 1


def test_what_we_did_not_build_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "tiny-clip").mkdir()
    (tmp_path / "tiny-clip" / "theirs").write_text("precious")
    with pytest.raises(ModelError, match="was not made by `models tiny`") as error:
        build_tiny(tmp_path, ("clip",))
    assert error.value.code == "model-in-the-way"
    assert (tmp_path / "tiny-clip" / "theirs").read_text() == "precious"


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, seed: int) -> None:
        (path / "half").write_text("")
        raise OSError("No space left on device")

    monkeypatch.setattr("stages.tiny.build_tiny_clip", fail)
    with pytest.raises(OSError, match="No space"):
        build_tiny(tmp_path, ("clip",))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bert is not one of"):
        build_tiny(tmp_path, ("bert",))


def test_building_does_not_disturb_the_callers_random_numbers(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    build_tiny(tmp_path, ("siglip",))
    assert torch.equal(torch.rand(3), expected)
