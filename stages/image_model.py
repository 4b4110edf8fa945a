"""The frame embedder: CLIP and SigLIP, with their text towers for search.

Frames come at the model's own size, cut by the decoder; what is left of preprocessing (rescale, subtract the mean,
divide by the standard deviation) is one multiplication and one addition, done on the device on whole batches.
transformers' own image processors are not used: they need torchvision or Pillow, and prepare one picture at a time.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from stages.base import Identity, Pixels, Query, Vector, Vectors
from stages.errors import ModelError
from stages.lanes import Lanes, lanes_of
from stages.model_files import Files
from stages.torch_model import dtype_for, load_errors, load_failed, prepare_transformers, unit_rows
from stages.weights import Weights
from transport.messages import FrameFormat

if TYPE_CHECKING:
    import torch

Towers = Literal["both", "image", "text"]

MAX_BATCH = 512  # beyond this even small models on large cards gain nothing, and one failure costs too much
RESCALE = 1 / 255  # uint8 to [0, 1], as both families were trained


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What preprocessor_config.json asks for: pixel → pixel * scale + offset, per channel, on frames of `format`."""

    format: FrameFormat
    scale: tuple[float, ...]  # red, green, blue
    offset: tuple[float, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read from a model directory. Raises ModelError (model-unsupported) when it asks for what we do not do."""
        config: dict[str, Any] = json.loads((path / "preprocessor_config.json").read_text("utf-8"))
        rescale = float(config.get("rescale_factor", RESCALE)) if config.get("do_rescale", True) else 1.0
        normalise = config.get("do_normalize", True)
        mean = config["image_mean"] if normalise else [0.0, 0.0, 0.0]
        std = config["image_std"] if normalise else [1.0, 1.0, 1.0]
        return cls(
            format=_frame_format(config, path),
            scale=tuple(rescale / s for s in std),
            offset=tuple(-m / s for m, s in zip(mean, std, strict=True)),
        )


def _frame_format(config: dict[str, Any], path: Path) -> FrameFormat:
    """Sizes come as {"shortest_edge": n}, {"height": h, "width": w}, or, in CLIP's oldest files, as a bare number."""
    size = config["size"]
    crop = config.get("crop_size") if config.get("do_center_crop") else None
    if crop is None:
        width, height = _width_height(size)
        return FrameFormat(width=width, height=height, fit="stretch")
    width, height = _width_height(crop)
    shortest_edge = size if isinstance(size, int) else size.get("shortest_edge")
    if shortest_edge != min(width, height):
        raise ModelError(
            "model-unsupported",
            f"{path.name}: resizes to {size}, then crops {width}x{height}; frames are cut without a margin, so "
            "models.image needs a model whose crop is as large as its shorter side",
        )
    return FrameFormat(width=width, height=height, fit="crop")


def _width_height(size: int | dict[str, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size["width"], size["height"])


class ImageModel:
    """A CLIP or SigLIP model on one device. `stages.base.Model` for frames; `embed_texts` for what is searched."""

    max_batch = MAX_BATCH
    outside_torch = False
    probe_length = 0  # as `length_of`

    def __init__(
        self,
        weights: Weights,
        tokenizer: Any,
        identity: Identity,
        preprocessing: Preprocessing,
        device: str,
        lanes: Lanes,
    ) -> None:
        self._weights = weights
        self._lanes = lanes
        self._tokenizer = tokenizer  # None when only the image tower is loaded
        self._device = device
        self._preprocessing = preprocessing
        self.frame_format = preprocessing.format
        self.precision = weights.precision
        self.dimension = _dimension(self._model.config)
        self.info = identity.info("image", self.dimension)

    @classmethod
    def load(
        cls,
        path: Path,
        identity: Identity,
        *,
        device: str = "cpu",
        dtype: str = "auto",
        towers: Towers = "both",
        lanes: Lanes | None = None,
    ) -> Self:
        """Load from a local directory; nothing is ever fetched.

        device: torch's name ("cpu", "cuda:0"). dtype: auto, float32, float16, bfloat16. towers: "image" and "text"
        leave the other half of the weights on disk. lanes: for batches; None: those of the device.
        Raises ModelError (model-load-failed) when the files are damaged.
        """
        prepare_transformers()
        preprocessing = Preprocessing.read(path)
        tokenizer = None if towers == "image" else _load_tokenizer(path)
        files = Files("image", path)

        def read() -> Any:
            files.check()
            return _load_module(path, towers, dtype_for(dtype, device)).eval()

        return cls(Weights(read, device), tokenizer, identity, preprocessing, device, lanes or lanes_of(device))

    def run(self, batch: Sequence[Pixels | Query]) -> list[Vector]:
        """uint8 RGB [height, width, 3] each, of `frame_format`, or queries → float32 [dimension] each, unit length."""
        queries = [item.text for item in batch if isinstance(item, Query)]
        frames = [item for item in batch if not isinstance(item, Query)]
        return list(self.embed_texts(queries) if queries else self.embed_pixels(np.stack(frames)))

    def probe(self, count: int) -> None:
        """Embed `count` frames of noise; all frames cost the same."""
        size = (count, self.frame_format.height, self.frame_format.width, 3)
        self.embed_pixels(np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8))

    def embed_pixels(self, pixels: Pixels) -> Vectors:
        """uint8 RGB [n, height, width, 3] → float32 [n, dimension], rows of unit length.

        Raises ValueError when the frames are not of `frame_format`.
        """
        wanted = (self.frame_format.height, self.frame_format.width, 3)
        if pixels.shape[1:] != wanted or pixels.dtype != np.uint8:
            raise ValueError(f"frames are {pixels.dtype} {pixels.shape[1:]}, the image model takes uint8 {wanted}")
        parts = np.array_split(pixels, min(self._lanes.count, len(pixels)))
        return np.concatenate(self._lanes.run(self._embed_part, parts))

    def _embed_part(self, pixels: Pixels) -> Vectors:
        import torch

        with torch.inference_mode():
            return unit_rows(self._image_features(self.normalise(pixels)), "models.image_dtype")

    def normalise(self, pixels: Pixels) -> "torch.Tensor":
        """uint8 [n, height, width, 3] in host memory → the model's float type [n, 3, height, width] on its device."""
        import torch

        # Whole planes of a channel: with channels side by side, as they come, the rest takes four times
        # as long on the CPU.
        channels = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)
        on_device = channels.to(torch.float32, memory_format=torch.contiguous_format)
        scale = torch.tensor(self._preprocessing.scale, device=self._device).view(1, 3, 1, 1)
        offset = torch.tensor(self._preprocessing.offset, device=self._device).view(1, 3, 1, 1)
        return on_device.mul_(scale).add_(offset).to(self._model.dtype)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Sentences to search frames by → float32 [n, dimension], rows of unit length. What exceeds the text tower's
        length (CLIP 77 tokens, SigLIP 64) is cut off.
        """
        import torch

        if self._tokenizer is None:
            raise RuntimeError("only the image tower is loaded")
        with torch.inference_mode():
            return unit_rows(self._text_features(list(texts)), "models.image_dtype")

    def length_of(self, item: Pixels | Query) -> int:
        """0: frames are all of one size, and a query costs about as much as a frame."""
        return 0

    def bytes_of(self, item: Pixels | Query) -> int:
        """Host bytes of one frame, or of a query."""
        return len(item.text.encode()) if isinstance(item, Query) else item.nbytes

    def park(self, keep: bool) -> None:
        """As `stages.base.Model.park`."""
        self._weights.park(keep)

    def restore(self) -> None:
        """As `stages.base.Model.restore`."""
        self._weights.restore()

    def unload(self) -> None:
        """Give the weights' memory back."""
        self._weights.park(keep=False)

    @property
    def _model(self) -> Any:
        """transformers' module, on the device. Raises RuntimeError while it is parked."""
        return self._weights.module

    def _image_features(self, pixel_values: "torch.Tensor") -> Any:
        """Pooled and projected, a tensor [n, dimension]; not yet of unit length."""
        if hasattr(self._model, "get_image_features"):
            return self._model.get_image_features(pixel_values=pixel_values).pooler_output
        return _features(self._model(pixel_values=pixel_values), "image_embeds")

    def _text_features(self, texts: list[str]) -> Any:
        inputs = _tokenize(self._tokenizer, self._model.config, texts).to(self._device)
        if hasattr(self._model, "get_text_features"):
            return self._model.get_text_features(**inputs).pooler_output
        return _features(self._model(**inputs), "text_embeds")


def _features(output: Any, name: str) -> Any:
    """Of a lone tower, a tensor [n, dimension]. CLIP's carries its projection apart, SigLIP's ends in it."""
    return getattr(output, name) if hasattr(output, name) else output.pooler_output


def _tokenize(tokenizer: Any, config: Any, texts: list[str]) -> Any:
    """Each family as it was trained.

    SigLIP reads the state of the last position, so its sentences are padded to full length and nothing is masked;
    its text is lower case, which SigLIP's own tokenizer sees to and the one SigLIP 2 borrows from Gemma does not
    (Tschannen et al. 2025, arXiv:2502.14786, section 2.1; github.com/huggingface/transformers/pull/43101).
    """
    text_config = getattr(config, "text_config", config)
    length = text_config.max_position_embeddings
    if not text_config.model_type.startswith("siglip"):
        return tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
    return tokenizer(
        [text.lower() for text in texts] if not hasattr(tokenizer, "do_lower_case") else texts,
        padding="max_length",
        truncation=True,
        max_length=length,
        return_attention_mask=False,
        return_tensors="pt",
    )


def _dimension(config: Any) -> int:
    """CLIP projects both towers to `projection_dim`; SigLIP's text tower is brought to the width of the other."""
    if config.model_type.startswith("clip"):
        return int(config.projection_dim)
    if hasattr(config, "vision_config"):
        return int(config.vision_config.hidden_size)
    return int(getattr(config, "projection_size", config.hidden_size))


def _load_module(path: Path, towers: Towers, dtype: "torch.dtype") -> Any:
    """Raises ModelError when the files are damaged or lack weights: torch would fill those with random numbers."""
    module_class = _module_class(path, towers)
    try:
        model, report = module_class.from_pretrained(path, dtype=dtype, local_files_only=True, output_loading_info=True)
    except load_errors() as error:
        raise load_failed("models.image", path, error) from error
    if report["missing_keys"]:
        some = ", ".join(sorted(report["missing_keys"])[:3])
        raise ModelError("model-load-failed", f"models.image: {path} lacks weights: {some}; pull the model again")
    return model


def _module_class(path: Path, towers: Towers) -> Any:
    import transformers

    family = json.loads((path / "config.json").read_text("utf-8"))["model_type"]
    names = {
        ("clip", "both"): "CLIPModel",
        ("clip", "image"): "CLIPVisionModelWithProjection",
        ("clip", "text"): "CLIPTextModelWithProjection",
        ("siglip", "both"): "SiglipModel",
        ("siglip", "image"): "SiglipVisionModel",
        ("siglip", "text"): "SiglipTextModel",
    }
    if (family, towers) not in names:
        raise ModelError("model-wrong-kind", f"models.image: {path} holds a {family} model; CLIP or SigLIP is needed")
    return getattr(transformers, names[family, towers])


def _load_tokenizer(path: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except load_errors() as error:
        raise load_failed("models.image", path, error) from error
