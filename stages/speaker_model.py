"""The speaker embedder: speechbrain's ECAPA-TDNN (https://arxiv.org/abs/2005.07143). All windows of a batch are of
one length.
"""

import importlib
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import yaml

from stages import torchaudio_shim
from stages.base import Identity, Pcm, Vector
from stages.errors import ModelError
from stages.lanes import Lanes, lanes_of
from stages.model_files import Files
from stages.torch_model import unit_rows
from stages.weights import Weights

if TYPE_CHECKING:
    import torch

MAX_BATCH = 256  # windows of 3 s; the budget decides below that
PROBE_SAMPLES = 48_000  # 3 s, the default of voice.window_seconds
INT16_SCALE = 1 / 32768  # the model was trained on sound between -1 and 1
ECAPA = "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN"


@dataclass(frozen=True, slots=True)
class Architecture:
    """The numbers under `embedding_model` in hyperparams.yaml."""

    input_size: int  # mel bands
    channels: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    dilations: tuple[int, ...]
    attention_channels: int
    lin_neurons: int  # dimension of the vector


class SpeakerModel:
    """A speechbrain ECAPA-TDNN on one device, in float32. `stages.base.Model`.

    Computes what speechbrain's `EncoderClassifier.encode_batch` does, and brings the vectors to unit length. Its own
    loader is not used: it runs whatever code hyperparams.yaml names, and replaces files by links.
    """

    max_batch = MAX_BATCH
    outside_torch = False

    def __init__(
        self,
        weights: Weights,
        identity: Identity,
        dimension: int,
        device: str,
        lanes: Lanes,
        probe_samples: int = PROBE_SAMPLES,
    ) -> None:
        self._lanes = lanes
        self._weights = weights  # of a ModuleList: features, norm, network
        self._device = device
        self.precision = weights.precision
        self.probe_length = probe_samples
        self.info = identity.info("voice", dimension)

    @classmethod
    def load(
        cls,
        path: Path,
        identity: Identity,
        *,
        device: str = "cpu",
        probe_samples: int = PROBE_SAMPLES,
        lanes: Lanes | None = None,
    ) -> Self:
        """Load from a local directory in the layout of speechbrain/spkrec-ecapa-voxceleb.

        hyperparams.yaml is read as data, and the weights as tensors; neither can run code. probe_samples: length of the
        longest windows that will come, at 16 kHz. lanes: for batches; None: those of the device.
        Raises ModelError: model-wrong-kind when the file describes another model, model-load-failed when the files are
        damaged or do not belong together.
        """
        architecture = read_architecture(path / "hyperparams.yaml")
        files = Files("voice", path)

        def read() -> Any:
            files.check()
            return _load_modules(architecture, path / "embedding_model.ckpt")

        return cls(
            Weights(read, device),
            identity,
            architecture.lin_neurons,
            device,
            lanes or lanes_of(device),
            probe_samples,
        )

    def run(self, batch: Sequence[Pcm]) -> list[Vector]:
        """int16 [samples] each, 16 kHz, all of one length → float32 [dimension] each, unit length.

        Raises ValueError when the lengths differ: padding would change the vectors (speechbrain issue 1374).
        """
        lengths = {len(window) for window in batch}
        if len(lengths) > 1:
            raise ValueError(f"windows of different lengths: {sorted(lengths)}")
        return self._lanes.map(self._run_part, batch)

    def _run_part(self, batch: Sequence[Pcm]) -> list[Vector]:
        import torch

        with torch.inference_mode():
            pcm = torch.from_numpy(np.stack(batch)).to(self._device)  # int16: half the bytes to the device
            return list(unit_rows(self._embed(pcm.float() * INT16_SCALE), "models.voice"))

    def probe(self, count: int) -> None:
        """Embed `count` windows of noise, as long as they come."""
        noise = np.random.default_rng(0).integers(-8192, 8192, self.probe_length, dtype=np.int16)
        self.run([noise] * count)

    def _embed(self, waveforms: "torch.Tensor") -> "torch.Tensor":
        """float32 [n, samples] → float32 [n, dimension], any length."""
        import torch

        features, norm, network = self._weights.module
        whole = torch.ones(len(waveforms), device=waveforms.device)
        embeddings: torch.Tensor = network(norm(features(waveforms), whole), whole)
        return embeddings.squeeze(1)

    def length_of(self, item: Pcm) -> int:
        """Samples: only windows of equal length share a batch."""
        return len(item)

    def bytes_of(self, item: Pcm) -> int:
        """Host bytes of one window."""
        return item.nbytes

    def park(self, keep: bool) -> None:
        """As `stages.base.Model.park`."""
        self._weights.park(keep)

    def restore(self) -> None:
        """As `stages.base.Model.restore`."""
        self._weights.restore()

    def unload(self) -> None:
        """Give the weights' memory back."""
        self._weights.park(keep=False)


def prepare_speechbrain() -> None:
    """Make `import speechbrain` safe, for us and for whatever else runs in this process. Call before importing from it.

    For names of former versions speechbrain leaves modules in sys.modules that import k2, spaCy or flair when somebody
    so much as asks them for an attribute, and raise ImportError where those are lacking. Whatever looks through
    sys.modules stumbles over them (debuggers, reloaders, test tools), and nothing here uses them.
    """
    torchaudio_shim.ensure()
    for name in ("lobes.features", "lobes.models.ECAPA_TDNN", "processing.features"):
        importlib.import_module(f"speechbrain.{name}")
    from speechbrain.utils.importutils import DeprecatedModuleRedirect

    for name, module in list(sys.modules.items()):
        if isinstance(module, DeprecatedModuleRedirect):
            del sys.modules[name]


def _load_modules(architecture: Architecture, file: Path) -> Any:
    """In a ModuleList, in eval mode and in host memory: waveforms [n, samples] → log mel energies [n, frames, mels]; …
    minus their mean over the window; … → [n, 1, dimension]. Only the last has weights.
    """
    prepare_speechbrain()
    import torch
    from speechbrain.lobes.features import Fbank
    from speechbrain.processing.features import InputNormalization

    network = build_network(architecture)
    _load_weights(network, file)
    norm = InputNormalization(norm_type="sentence", std_norm=False)
    return torch.nn.ModuleList([Fbank(n_mels=architecture.input_size), norm, network]).eval()


def build_network(architecture: Architecture) -> Any:
    """speechbrain's ECAPA_TDNN with fresh weights."""
    prepare_speechbrain()
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    return ECAPA_TDNN(
        architecture.input_size,
        channels=list(architecture.channels),
        kernel_sizes=list(architecture.kernel_sizes),
        dilations=list(architecture.dilations),
        attention_channels=architecture.attention_channels,
        lin_neurons=architecture.lin_neurons,
    )


def read_architecture(file: Path) -> Architecture:
    """The embedding model that hyperparams.yaml describes. The file is parsed, and nothing is made of its tags.

    Raises ModelError (model-wrong-kind) when it is no ECAPA-TDNN, or has settings that are not known here.
    """
    try:
        top = _entries(yaml.compose(file.read_text("utf-8"), Loader=yaml.SafeLoader))
        model = top["embedding_model"]
        if model.tag != f"!new:{ECAPA}":
            raise ValueError(f"embedding_model is {model.tag}")
        return _architecture({key: _resolved(value, top) for key, value in _entries(model).items()})
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ModelError(
            "model-wrong-kind",
            f"models.voice: {file} is not that of an ECAPA-TDNN as in speechbrain/spkrec-ecapa-voxceleb ({reason})",
        ) from error


def _entries(node: Any) -> dict[str, Any]:
    """Keys and value nodes of a yaml.MappingNode."""
    return {key.value: value for key, value in node.value}


def _resolved(node: Any, top: dict[str, Any]) -> Any:
    """Follow HyperPyYAML's `!ref <name>`, the value of that name at the top."""
    return top[node.value.strip("<>")] if node.tag == "!ref" else node


def _architecture(nodes: dict[str, Any]) -> Architecture:
    def numbers(key: str) -> tuple[int, ...]:
        return tuple(int(node.value) for node in nodes.pop(key).value)

    architecture = Architecture(
        input_size=int(nodes.pop("input_size").value),
        channels=numbers("channels"),
        kernel_sizes=numbers("kernel_sizes"),
        dilations=numbers("dilations"),
        attention_channels=int(nodes.pop("attention_channels").value),
        lin_neurons=int(nodes.pop("lin_neurons").value),
    )
    if nodes:
        raise ValueError(f"unknown settings: {', '.join(nodes)}")
    return architecture


def _load_weights(network: "torch.nn.Module", file: Path) -> None:
    import torch

    try:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except (OSError, EOFError, RuntimeError, ValueError, AttributeError, TypeError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError("model-load-failed", f"models.voice: {file}: {reason}: fetch the model again") from error
