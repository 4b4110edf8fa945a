"""cuBLAS 12 for CTranslate2: found in the package or in the system, or missed at the start."""

import ctypes
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages import cublas
from stages.errors import ModelError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty stand-in for the nvidia packages."""
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    lib = tmp_path / "cublas" / "lib"
    lib.mkdir(parents=True)
    return lib


def test_libraries_of_the_package_are_loaded(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some_library = next(
        line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libc.so" in line
    )
    for name in cublas.LIBRARIES:
        shutil.copy(some_library, package / name)
    loaded: list[str] = []
    real = ctypes.CDLL

    def load(name: str, mode: int = 0) -> ctypes.CDLL:
        loaded.append(name)
        return real(name, mode)

    monkeypatch.setattr(ctypes, "CDLL", load)
    cublas.preload_cublas()
    assert loaded == [str(package / name) for name in cublas.LIBRARIES]


def test_a_missing_library_is_named_with_what_to_do(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cublas, "LIBRARIES", ("libcublas-that-is-nowhere.so.12",))
    with pytest.raises(ModelError, match=r"libcublas-that-is-nowhere\.so\.12: run make cuda") as caught:
        cublas.preload_cublas()
    assert caught.value.code == "model-library"
