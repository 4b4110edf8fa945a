"""The text embedder: any sentence-transformers model, for transcripts, captions and what is searched in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from stages.base import Identity, Vector, Vectors
from stages.errors import ModelError
from stages.torch_model import dtype_for, prepare_transformers, release, unit_rows

MAX_BATCH = 512  # as for frames: more brings no speed, and costs more when it fails
PROBES = ["a short sentence", "another one, a little longer than the first"]


class TextModel:
    """A sentence-transformers model on one device. `stages.base.Model` for documents; `embed_queries` for searches.

    Models trained with instructions ("query: ", "passage: ") carry them in config_sentence_transformers.json; they are
    put before queries and documents as the model asks. Text beyond `max_tokens` is cut off by the model.
    """

    max_batch = MAX_BATCH

    def __init__(self, model: Any, identity: Identity, device: str) -> None:
        self._model = model  # SentenceTransformer in eval mode
        self._device = device
        self.max_tokens: int | None = model.max_seq_length
        self.dimension = _checked_dimension(model)
        self.info = identity.info("text", self.dimension)

    @classmethod
    def load(cls, path: Path, identity: Identity, *, device: str = "cpu", dtype: str = "auto") -> Self:
        """Load from a local directory; nothing is ever fetched, and no code that comes with the model is run.

        Raises ModelError: model-load-failed when the files are damaged or need code of their own, model-wrong-kind when
        what it gives for text is not one vector a text.
        """
        prepare_transformers()
        from safetensors import SafetensorError
        from sentence_transformers import SentenceTransformer

        try:
            model = SentenceTransformer(
                str(path),
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"dtype": dtype_for(dtype, device)},
            )
        except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
            raise ModelError("model-load-failed", f"models.text: {path}: {' '.join(str(error).split())}") from error
        return cls(model.eval(), identity, device)

    def run(self, batch: Sequence[str]) -> list[Vector]:
        """Documents → float32 [dimension] each, unit length."""
        return list(self.embed_documents(batch))

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """What is searched in → float32 [n, dimension], rows of unit length."""
        return self._unit_rows(self._model.encode_document, texts)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """What is searched for → float32 [n, dimension], rows of unit length."""
        return self._unit_rows(self._model.encode_query, texts)

    def length_of(self, item: str) -> int:
        """Characters: near enough to tokens for batches of like length."""
        return len(item)

    def bytes_of(self, item: str) -> int:
        """Host bytes of one text."""
        return len(item.encode())

    def unload(self) -> None:
        """Give the weights' memory back."""
        self._model = None
        release(self._device)

    def _unit_rows(self, encode: Any, texts: Sequence[str]) -> Vectors:
        """The batch as given, in one pass. The library is told that these are texts by giving it a list of str: it
        guesses the kind of anything else from its shape.
        """
        features = encode(list(texts), batch_size=len(texts), show_progress_bar=False, convert_to_tensor=True)
        return unit_rows(features, "models.text_dtype")


def _checked_dimension(model: Any) -> int:
    """Run the model once: versions of the library differ in what they make of their input, so nothing is assumed."""
    vectors = model.encode(PROBES, show_progress_bar=False)
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or len(vectors) != len(PROBES):
        raise ModelError("model-wrong-kind", "models.text: the model does not give one vector for each text")
    return int(vectors.shape[1])
