"""The text embedder: any sentence-transformers model, for transcripts, captions and what is searched in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from stages.base import Identity, Vector, Vectors
from stages.errors import ModelError
from stages.torch_model import dtype_for, load_errors, load_failed, prepare_transformers, release, unit_rows

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
        from sentence_transformers import SentenceTransformer

        try:
            model = SentenceTransformer(
                str(path),
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"dtype": dtype_for(dtype, device)},
            )
        except load_errors() as error:
            raise load_failed("models.text", path, error) from error
        return cls(model.eval(), identity, device)

    def run(self, batch: Sequence[str]) -> list[Vector]:
        """Documents → float32 [dimension] each, unit length."""
        return list(self.embed_documents(batch))

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """What is searched in → float32 [n, dimension], rows of unit length."""
        return self._unit_rows(self._model.encode_document, texts, ("document", "passage", "corpus"))

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """What is searched for → float32 [n, dimension], rows of unit length."""
        return self._unit_rows(self._model.encode_query, texts, ("query",))

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

    def _unit_rows(self, encode: Any, texts: Sequence[str], prompt_names: tuple[str, ...]) -> Vectors:
        """The batch as given, in one pass. The library is told that these are texts by giving it a list of str: it
        guesses the kind of anything else from its shape.

        The prompt is chosen here: the library keeps an empty "document" beside a model's "passage", and takes it first.
        """
        prompts = (self._model.prompts.get(name) for name in prompt_names)
        features = encode(
            list(texts),
            prompt=next((prompt for prompt in prompts if prompt), None),
            batch_size=len(texts),
            show_progress_bar=False,
            convert_to_tensor=True,
        )
        return unit_rows(features, "models.text_dtype")


def _checked_dimension(model: Any) -> int:
    """Run the model once: versions of the library differ in what they make of their input, so nothing is assumed."""
    try:
        shape = model.encode(PROBES, show_progress_bar=False).shape
    except KeyError as error:  # the library looks for an output that only a pooling layer makes
        raise ModelError("model-wrong-kind", f"models.text: the model gives no {error} for a text") from error
    if len(shape) != 2 or shape[0] != len(PROBES):
        raise ModelError("model-wrong-kind", f"models.text: the model gives {shape} for {len(PROBES)} texts")
    return int(shape[1])
