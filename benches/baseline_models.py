"""The models of a baseline, loaded as their libraries' own documents say: the weights and the precision of Sluice."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.speaker_model import prepare_speechbrain
from stages.torch_model import prepare_transformers


@dataclass(frozen=True, slots=True)
class Models:
    """One of each, on the CPU."""

    processor: Any  # transformers' CLIPImageProcessor
    image: Any  # transformers' CLIPModel, float32
    speech: Any  # faster_whisper.BatchedInferencePipeline, int8: what Sluice takes on a CPU
    text: Any  # SentenceTransformer, float32
    voice: Any  # speechbrain's EncoderClassifier, float32


def load_models(image: Path, speech: Path, text: Path, voice: Path, threads: int | None = None) -> Models:
    """Load all of them from directories; nothing is fetched. threads: of every library; None: as many as it likes."""
    prepare_transformers()  # without these two nobody could import either library beside a CPU build of torch
    prepare_speechbrain()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return Models(*_image(image), _speech(speech, threads or 0), _text(text), _voice(voice))


def _image(path: Path) -> tuple[Any, Any]:
    from transformers import CLIPImageProcessor, CLIPModel

    return CLIPImageProcessor.from_pretrained(path), CLIPModel.from_pretrained(path).eval()


def _speech(path: Path, threads: int) -> Any:
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    model = WhisperModel(str(path), device="cpu", compute_type="int8", cpu_threads=threads)
    return BatchedInferencePipeline(model)


def _text(path: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(path), device="cpu", local_files_only=True)


def _voice(path: Path) -> Any:
    from speechbrain.inference.speaker import EncoderClassifier
    from speechbrain.utils.fetching import LocalStrategy

    return EncoderClassifier.from_hparams(
        str(path),
        overrides={"pretrained_path": str(path)},
        savedir=str(path),
        local_strategy=LocalStrategy.NO_LINK,
        run_opts={"device": "cpu"},
    )
