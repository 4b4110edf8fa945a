"""From a setting under [models] to a directory, an identity, and a loaded model.

A setting is a hub id ("openai/clip-vit-base-patch32"), a directory, or "package:NAME" for weights inside an installed
Python package. Nothing here reaches for a network: `stages.hub.pull` does, and only when it is called. Model libraries
are imported by `load` alone, so that looking up all models takes milliseconds.
"""

import importlib.util
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.base import ROLES, Identity, Model, Role
from stages.errors import ModelError
from stages.garbage import collected_seldom
from stages.lanes import Lanes
from stages.model_files import check_kind, is_untrained, revision, size_bytes
from stages.options import ModelOptions, SpeechOptions, VoiceOptions
from transport.messages import FrameFormat

if TYPE_CHECKING:
    from stages.image_model import Towers

OFF = "off"
SAMPLE_RATE = 16_000  # of all sound
PACKAGE = "package:"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One line of `models list`."""

    role: Role
    source: str
    state: str  # ready | off | an error's code
    path: Path | None
    size_bytes: int
    label: str | None  # name@revision, as points carry it
    message: str | None  # what to do when it is not ready


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One line of `models check`."""

    role: Role
    source: str
    loaded: bool
    label: str | None
    dimension: int  # 0 for the speech model
    load_seconds: float
    message: str | None  # why it did not load


def configured(options: ModelOptions) -> list[tuple[Role, str]]:
    """The roles that are not off, with their settings."""
    return [(role, getattr(options, role)) for role in ROLES if getattr(options, role) != OFF]


def resolve(role: Role, source: str, directory: Path) -> Path:
    """Where the model lies on this machine.

    directory: where `models pull` puts models. Raises ModelError: model-missing when it is nowhere, model-wrong-kind
    when what is there does not fit the role.
    """
    path = _locate(role, source, directory)
    check_kind(role, source, path)
    return path


def identify(role: Role, source: str, path: Path) -> Identity:
    """Name, revision (see `stages.model_files.revision`), and whether `models tiny` made it."""
    return Identity(name=_name(source, path), revision=revision(role, path), untrained=is_untrained(path))


@collected_seldom()
def load(
    role: Role,
    options: ModelOptions,
    speech: SpeechOptions,
    device: str,
    voice: VoiceOptions | None = None,
    *,
    towers: "Towers" = "image",
    lanes: Lanes | None = None,
) -> Model:
    """Find and load the model of a role. device: torch's name ("cpu", "cuda:0"). voice: what windows it will get, which
    only `probe` needs to know; None: the defaults. towers: of the image model; where no queries are answered, its text
    tower would lie on the device for nothing, half of CLIP ViT-B/32 and three quarters of SigLIP 2 base. lanes: for
    batches; None: those of the device.

    Raises ModelError as `resolve` does, and model-load-failed when the files are damaged.
    """
    source: str = getattr(options, role)
    path = resolve(role, source, Path(options.directory))
    identity = identify(role, source, path)
    match role:
        case "image":
            from stages.image_model import ImageModel

            return ImageModel.load(path, identity, device=device, dtype=options.image_dtype, towers=towers, lanes=lanes)
        case "text":
            from stages.text_model import TextModel

            return TextModel.load(path, identity, device=device, dtype=options.text_dtype, lanes=lanes)
        case "speech":
            from stages.speech_model import SpeechModel

            return SpeechModel.load(
                path, identity, device=device, dtype=options.speech_dtype, options=speech, lanes=lanes
            )
        case "voice":
            from stages.speaker_model import SpeakerModel

            samples = round((voice or VoiceOptions()).window_seconds * SAMPLE_RATE)
            return SpeakerModel.load(path, identity, device=device, probe_samples=samples, lanes=lanes)


def frame_format(options: ModelOptions) -> FrameFormat | None:
    """What the image model takes, by its files alone; None when it is off. Raises ModelError as `load` does."""
    if options.image == OFF:
        return None
    from stages.image_model import Preprocessing

    return Preprocessing.read(resolve("image", options.image, Path(options.directory))).format


def list_models(options: ModelOptions) -> list[ModelRow]:
    """What `models list` shows, one row a role; loads nothing."""
    return [_row(role, getattr(options, role), Path(options.directory)) for role in ROLES]


def check(options: ModelOptions, speech: SpeechOptions, device: str) -> list[CheckRow]:
    """What `models check` shows: each configured model, loaded whole and unloaded in turn."""
    return [_check(role, source, options, speech, device) for role, source in configured(options)]


def hub_directory(source: str, directory: Path) -> Path:
    """Where `models pull` puts a hub model."""
    return directory / source.replace("/", "--")


def is_local(source: str) -> bool:
    """Whether a setting names a directory: it looks like one, or there is one of that name."""
    return source.startswith(("/", "./", "../", "~")) or (source != "" and Path(source).is_dir())


def is_hub_id(source: str) -> bool:
    """Whether a setting names a model on the hub."""
    return not is_local(source) and HUB_ID.fullmatch(source) is not None


def _locate(role: Role, source: str, directory: Path) -> Path:
    if source.startswith(PACKAGE):
        return _package_directory(role, source)
    if is_local(source):
        path = Path(source).expanduser()
        if not path.is_dir():
            raise ModelError("model-missing", f'models.{role} = "{source}": there is no such directory')
        return path
    if not is_hub_id(source):
        raise ModelError(
            "model-missing",
            f'models.{role} = "{source}" is neither a directory, nor a hub id (org/name), nor "package:NAME"',
        )
    pulled = hub_directory(source, directory)
    found = pulled if pulled.is_dir() else _cached_snapshot(source)
    if found is None:
        raise ModelError(
            "model-missing",
            f'models.{role} = "{source}" is not on this machine: `python run.py models pull` fetches it, or set '
            f"models.{role} to a local directory; `python run.py models tiny` makes untrained models to try without",
        )
    return found


def _package_directory(role: Role, source: str) -> Path:
    """The directory with weights inside an installed package, which is found but not imported."""
    name = source.removeprefix(PACKAGE)
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "model-missing", f'models.{role} = "{source}": that package is not installed: pip install {name}'
        )
    root = Path(spec.submodule_search_locations[0])
    candidates = [path for path in (root, *sorted(root.iterdir())) if (path / "config.json").is_file()]
    if not candidates:
        raise ModelError("model-missing", f'models.{role} = "{source}": the package {name} holds no model')
    return candidates[0]


def _cached_snapshot(source: str) -> Path | None:
    """The newest snapshot in the hub's own cache (huggingface.co/docs/huggingface_hub/guides/manage-cache).

    Read as files rather than asked of the library, which calls a snapshot incomplete unless it holds every file of the
    repository; other programs fetch only what they read, as we do.
    """
    from huggingface_hub import constants

    repository = Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}"
    head = repository / "refs" / "main"
    if not head.is_file():
        return None
    snapshot = repository / "snapshots" / head.read_text("utf-8").strip()
    return snapshot if snapshot.is_dir() else None


def _name(source: str, path: Path) -> str:
    if source.startswith(PACKAGE):
        return source.removeprefix(PACKAGE)
    return source if is_hub_id(source) else path.resolve().name


def _row(role: Role, source: str, directory: Path) -> ModelRow:
    if source == OFF:
        return ModelRow(role, source, "off", None, 0, None, None)
    try:
        path = resolve(role, source, directory)
    except ModelError as error:
        return ModelRow(role, source, error.code, None, 0, None, error.message)
    label = identify(role, source, path).info(role, 0).label
    return ModelRow(role, source, "ready", path, size_bytes(role, path), label, None)


def _check(role: Role, source: str, options: ModelOptions, speech: SpeechOptions, device: str) -> CheckRow:
    started = time.monotonic()
    try:
        model = load(role, options, speech, device, towers="both")
    except ModelError as error:
        return CheckRow(role, source, False, None, 0, time.monotonic() - started, error.message)
    seconds = time.monotonic() - started
    model.unload()
    return CheckRow(role, source, True, model.info.label, model.info.dimension, seconds, None)
