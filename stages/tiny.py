"""Small untrained models of the real architectures, for trying everything without a network.

They are saved by the libraries' own `save_pretrained`, so that the code which loads them is the code which loads real
ones. Their vectors mean nothing, and every point made with them says so: a directory that holds `sluice.json` with
`{"untrained": true}` is labelled untrained wherever it is named.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from stages.errors import ModelError
from stages.model_files import MARKER

RECIPE = 2  # counts up when what is built changes, so that older builds are replaced
FAMILIES = ("clip", "siglip", "whisper", "ecapa")

IMAGE_SIZE = 224  # the real input size, so that decoding costs what it costs with a real model
WIDTH = 64  # of both towers, and of the vectors
LAYERS = 2
HEADS = 2


def build_tiny(directory: Path, families: Iterable[str] = FAMILIES, seed: int = 0) -> dict[str, Path]:
    """Build what is not there yet under `directory`; return where each family is.

    The same seed gives the same weights, and so the same revision. A build that was cut off leaves nothing under the
    final name. Raises ModelError (model-in-the-way) when a directory that we did not make has the name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    return {family: _build(family, directory / f"tiny-{family}", seed) for family in families}


def _build(family: str, target: Path, seed: int) -> Path:
    return build_marked(target, {"family": family, "recipe": RECIPE, "seed": seed}, _builder(family, seed))


def build_marked(target: Path, made_from: Mapping[str, object], build: Callable[[Path], None]) -> Path:
    """Build an untrained model at `target`, whole or not at all; what was built from the same is left alone.

    build: fills an existing, empty directory. Raises ModelError (model-in-the-way) as `build_tiny` does.
    """
    marker = {"untrained": True, **made_from}
    if _is_built(target, marker):
        return target
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        build(partial)
        (partial / MARKER).write_text(json.dumps(marker) + "\n", "utf-8")
        if target.exists():
            shutil.rmtree(target)  # an older build of ours: _is_built has seen its marker
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _is_built(target: Path, marker: dict[str, object]) -> bool:
    if not target.exists():
        return False
    try:
        found = json.loads((target / MARKER).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            "model-in-the-way",
            f"{target} exists and was not made by `models tiny`: move it, or choose another directory",
        ) from error
    return bool(found == marker)


def _builder(family: str, seed: int) -> Callable[[Path], None]:
    """What builds a family into an existing, empty directory. Imported when needed: each brings its own libraries."""
    match family:
        case "clip":
            return lambda path: build_tiny_clip(path, seed)
        case "siglip":
            return lambda path: build_tiny_siglip(path, seed)
        case "whisper":
            from stages.tiny_speech import build_tiny_whisper

            return build_tiny_whisper
        case "ecapa":
            from stages.tiny_voice import build_tiny_ecapa

            return build_tiny_ecapa
        case _:
            raise ValueError(f"{family} is not one of {FAMILIES}")


def build_tiny_clip(path: Path, seed: int) -> None:
    """A CLIPModel with CLIP's byte-level tokenizer, into the existing directory `path`."""
    from stages.tiny_tokenizers import build_clip_tokenizer
    from stages.torch_model import prepare_transformers

    prepare_transformers()
    from transformers import CLIPModel

    tokenizer = build_clip_tokenizer()
    text = _tower({"vocab_size": len(tokenizer)})
    config = clip_config(tokenizer, text, _tower({"image_size": IMAGE_SIZE, "patch_size": 32}), WIDTH)
    _save(CLIPModel, config, tokenizer, path, seed)
    write_clip_preprocessor(path)


def clip_config(tokenizer: Any, text: Mapping[str, object], vision: Mapping[str, object], dimension: int) -> Any:
    """A transformers.CLIPConfig with towers of these sizes, for texts of that tokenizer, and vectors of `dimension`."""
    from transformers import CLIPConfig

    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return CLIPConfig(
        text_config={**text, **special, "projection_dim": dimension},
        vision_config={**vision, "projection_dim": dimension},
        projection_dim=dimension,
    )


def write_clip_preprocessor(path: Path) -> None:
    """preprocessor_config.json as the real CLIP has it."""
    _write_preprocessor(
        path,
        image_processor_type="CLIPImageProcessor",
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        do_center_crop=True,
        image_mean=[0.48145466, 0.4578275, 0.40821073],  # of CLIP's training pictures, as its real files have it
        image_std=[0.26862954, 0.26130258, 0.27577711],
    )


def build_tiny_siglip(path: Path, seed: int) -> None:
    """A SiglipModel with SigLIP's SentencePiece tokenizer, into the existing directory `path`."""
    from stages.tiny_tokenizers import build_siglip_tokenizer
    from stages.torch_model import prepare_transformers

    prepare_transformers()
    from transformers import SiglipConfig, SiglipModel

    tokenizer = build_siglip_tokenizer(path)
    text = {"vocab_size": len(tokenizer), "projection_size": WIDTH, "max_position_embeddings": 64}
    vision = {"image_size": IMAGE_SIZE, "patch_size": 32}
    config = SiglipConfig(text_config=_tower(text), vision_config=_tower(vision))
    _save(SiglipModel, config, tokenizer, path, seed)
    write_siglip_preprocessor(path)


def write_siglip_preprocessor(path: Path) -> None:
    """preprocessor_config.json as the real SigLIP has it."""
    _write_preprocessor(
        path,
        image_processor_type="SiglipImageProcessor",
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def _tower(more: Mapping[str, object]) -> dict[str, object]:
    shape: dict[str, object] = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
    }
    return {**shape, **more}


def _save(model_class, config, tokenizer, path: Path, seed: int) -> None:  # type: ignore[no-untyped-def]
    """Random weights of `seed`, without disturbing the random numbers of whoever calls."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def _write_preprocessor(path: Path, **settings: object) -> None:
    common = {
        "do_resize": True,
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "do_convert_rgb": True,
    }
    (path / "preprocessor_config.json").write_text(json.dumps(common | settings, indent=2) + "\n", "utf-8")
