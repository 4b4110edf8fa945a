"""The models, loaded onto the device. Runs in the engine process (and in `search`, which is its own)."""

import threading
from dataclasses import dataclass

from tqdm import tqdm

from engine.config import Config
from stages.base import Model
from stages.image_model import ImageModel
from stages.registry import configured, load
from transport.messages import FrameFormat


@dataclass(frozen=True, slots=True)
class LoadedModels:
    """Every model that is not off."""

    by_role: dict[str, Model]
    frame_format: FrameFormat | None  # what the image model takes; None when it is off


def load_models(config: Config, device: str) -> LoadedModels:
    """Load all models of the configuration, one after the other.

    Raises:
        ModelError: one is missing, of the wrong kind or damaged; the message says which and what to do.
    """
    # The libraries' progress bars share a lock between processes by default: a semaphore that a killed process leaks.
    tqdm.set_lock(threading.RLock())
    by_role: dict[str, Model] = {
        role: load(role, config.models, config.speech, device) for role, _ in configured(config.models)
    }
    image = by_role.get("image")
    return LoadedModels(by_role, image.frame_format if isinstance(image, ImageModel) else None)
