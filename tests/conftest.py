"""What several test modules share."""

import shutil
import signal
from pathlib import Path

import pytest

from benches.sample_video import make_sample
from stages.tiny import build_tiny

# Each has half a minute of whole runs and more. Begun first, so that none is left to one worker at the end.
LONG = (
    "test_disturbances",
    "test_processes",
    "test_consumer",
    "test_daemon",
    "test_device_processes",
    "test_chaos",
    "test_checkpoints",
    "test_cli",
    "test_baselines",
    "test_bad_sound",
    "test_quality",
)


def pytest_configure() -> None:
    """Hear Ctrl-C: what a shell runs in the background ignores it, and so would the runs that tests end with it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first; the others, and the tests in each, in their own order."""
    rank = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))


class TinyModels:
    """The tiny models of this test session, each built when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __getitem__(self, family: str) -> Path:
        """Directory of clip, siglip, whisper or ecapa."""
        return build_tiny(self.directory, (family,))[family]


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    return TinyModels(tmp_path_factory.mktemp("models"))


@pytest.fixture
def clip(tiny_models: TinyModels, tmp_path: Path) -> Path:
    """A copy of the tiny CLIP that a test may spoil."""
    return Path(shutil.copytree(tiny_models["clip"], tmp_path / "clip"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to resolve a name or open a connection fails the test."""

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"the network was reached for: {arguments}")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.fixture(scope="session")
def sample_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds of made video with pictures, a voice and captions."""
    return make_sample(tmp_path_factory.mktemp("sample") / "sample.mp4", seconds=20)
