"""Vectors by the plain calls of the libraries themselves, one item at a time, in float32 on the CPU.

What they are given is what the engine's models were given: frames as the decoder cut them, texts as they are stored,
windows of sound as they were cut. So what differs is precision, batches, the wire and the store, and nothing else.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.speaker_model import prepare_speechbrain
from stages.torch_model import prepare_transformers

Matrix = NDArray[np.float64]  # [n, dimension]
INT16_SCALE = 1 / 32768


def plain_images(path: Path, frames: Sequence[NDArray[np.uint8]]) -> Matrix:
    """transformers' CLIPModel or SiglipModel, after its own `rescale` and `normalize` of each picture."""
    prepare_transformers()
    import torch
    from transformers import AutoModel
    from transformers.image_transforms import normalize, rescale

    config = json.loads((path / "preprocessor_config.json").read_text("utf-8"))
    model: Any = AutoModel.from_pretrained(path, local_files_only=True).eval()
    rows = []
    for frame in frames:
        scaled = rescale(frame, config["rescale_factor"])
        values = normalize(scaled, config["image_mean"], config["image_std"]).transpose(2, 0, 1)
        with torch.inference_mode():
            features = model.get_image_features(pixel_values=torch.tensor(values[None], dtype=torch.float32))
        rows.append(features.pooler_output[0].numpy())
    return np.array(rows, np.float64)


def plain_texts(path: Path, texts: Sequence[str]) -> Matrix:
    """sentence-transformers' `encode`."""
    prepare_transformers()
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(path), device="cpu", local_files_only=True)
    rows = [model.encode(text, show_progress_bar=False) for text in texts]
    return np.array(rows, np.float64)


def plain_voices(path: Path, windows: Sequence[NDArray[np.int16]], directory: Path) -> Matrix:
    """speechbrain's `EncoderClassifier.encode_batch`, loaded as its documentation says. directory: for its files."""
    prepare_speechbrain()
    import torch
    from speechbrain.inference.classifiers import EncoderClassifier
    from speechbrain.utils.fetching import LocalStrategy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what speechbrain and HyperPyYAML use
        classifier = EncoderClassifier.from_hparams(
            source=str(path),
            savedir=str(directory),
            overrides={"pretrained_path": str(path)},
            local_strategy=LocalStrategy.COPY,
        )
    prepare_speechbrain()  # the loader has left more in sys.modules
    rows = []
    for window in windows:
        with torch.inference_mode():
            sound = torch.from_numpy(window.astype(np.float32) * INT16_SCALE)[None]
            rows.append(classifier.encode_batch(sound)[0, 0].numpy())
    return np.array(rows, np.float64)
