"""The text embedder: any sentence-transformers model, for transcripts, captions and what is searched in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from stages.base import Identity, Query, Vector, Vectors
from stages.errors import ModelError
from stages.lanes import Lanes, lanes_of
from stages.model_files import Files
from stages.torch_model import dtype_for, load_errors, load_failed, prepare_transformers, unit_rows
from stages.weights import Weights

if TYPE_CHECKING:
    import torch

MAX_BATCH = 512  # as for frames: more brings no speed, and costs more when it fails
LONGEST_TOKENS = 1024  # no phrase of speech has more; models that take 32768 tokens would need gigabytes for one text
PROBE_WORD = "zq7 "  # one token or more in any tokenizer
LOADING_TEXTS = ["a short sentence", "another one, a little longer than the first"]


class TextModel:
    """A sentence-transformers model on one device. `stages.base.Model` for documents; `embed_queries` for searches.

    Models trained with instructions ("query: ", "passage: ") carry them in config_sentence_transformers.json; they are
    put before queries and documents as the model asks. Text beyond `max_tokens` is cut off by the model.

    Lengths are counted in UTF-8 bytes, up to `max_tokens`. A token spells a byte or more, so a text never has more
    tokens than its length says, and at `max_tokens` bytes it may be as long for the model as any: what is predicted
    from the length of a text is an upper bound (English has 4 to 5 bytes a token).
    """

    max_batch = MAX_BATCH
    outside_torch = False

    def __init__(self, weights: Weights, identity: Identity, lanes: Lanes) -> None:
        self._weights = weights
        self._lanes = lanes
        self.precision = weights.precision
        self.max_tokens: int = self._model.max_seq_length
        self.probe_length = self.max_tokens
        self.dimension = _checked_dimension(self._model)
        self.info = identity.info("text", self.dimension)

    @classmethod
    def load(
        cls,
        path: Path,
        identity: Identity,
        *,
        device: str = "cpu",
        dtype: str = "auto",
        lanes: Lanes | None = None,
    ) -> Self:
        """Load from a local directory; nothing is ever fetched, and no code that comes with the model is run.

        lanes: for batches; None: those of the device.

        Raises ModelError: model-load-failed when the files are damaged or need code of their own, model-wrong-kind when
        what it gives for text is not one vector a text.
        """
        prepare_transformers()
        files = Files("text", path)

        def read() -> Any:
            files.check()
            return _load_module(path, dtype_for(dtype, device))

        return cls(Weights(read, device), identity, lanes or lanes_of(device))

    def run(self, batch: Sequence[str | Query]) -> list[Vector]:
        """Documents, or queries → float32 [dimension] each, unit length."""
        queries = [item.text for item in batch if isinstance(item, Query)]
        documents = [item for item in batch if isinstance(item, str)]
        return list(self.embed_queries(queries) if queries else self.embed_documents(documents))

    def probe(self, count: int) -> None:
        """Embed `count` texts of `max_tokens` tokens. One is shorter where there are several, as in any real batch:
        models need more memory when there is padding to mask.
        """
        longest = PROBE_WORD * self.max_tokens
        self.embed_documents([longest] * (count - 1) + [longest if count == 1 else PROBE_WORD])

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """What is searched in → float32 [n, dimension], rows of unit length."""
        return self._unit_rows(self._model.encode_document, texts, ("document", "passage", "corpus"))

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """What is searched for → float32 [n, dimension], rows of unit length."""
        return self._unit_rows(self._model.encode_query, texts, ("query",))

    def length_of(self, item: str | Query) -> int:
        """UTF-8 bytes, at most `max_tokens`: no less than its tokens."""
        return min(self.bytes_of(item), self.max_tokens)

    def bytes_of(self, item: str | Query) -> int:
        """Host bytes of one text."""
        return len((item.text if isinstance(item, Query) else item).encode())

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
        """The SentenceTransformer, on the device. Raises RuntimeError while it is parked."""
        return self._weights.module

    def _unit_rows(self, encode: Any, texts: Sequence[str], prompt_names: tuple[str, ...]) -> Vectors:
        """The batch as given, in one pass, or one in each lane: of texts of like length, for each is padded to the
        longest beside it. The library is told that these are texts by giving it a list of str: it guesses the kind of
        anything else from its shape.

        The prompt is chosen here: the library keeps an empty "document" beside a model's "passage", and takes it first.
        """
        prompts = (self._model.prompts.get(name) for name in prompt_names)
        prompt = next((prompt for prompt in prompts if prompt), None)

        def embed(part: Sequence[str]) -> Vectors:
            features = encode(
                list(part), prompt=prompt, batch_size=len(part), show_progress_bar=False, convert_to_tensor=True
            )
            return unit_rows(features, "models.text_dtype")

        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        rows = self._lanes.run(embed, self._lanes.parts([texts[index] for index in order]))
        return np.concatenate(rows)[np.argsort(order)]


def _load_module(path: Path, dtype: "torch.dtype") -> Any:
    """A SentenceTransformer in host memory, in eval mode, that takes at most LONGEST_TOKENS."""
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(
            str(path), device="cpu", local_files_only=True, trust_remote_code=False, model_kwargs={"dtype": dtype}
        )
    except load_errors() as error:
        raise load_failed("models.text", path, error) from error
    model.max_seq_length = min(model.max_seq_length or LONGEST_TOKENS, LONGEST_TOKENS)
    return model.eval()


def _checked_dimension(model: Any) -> int:
    """Run the model once: versions of the library differ in what they make of their input, so nothing is assumed."""
    try:
        shape = model.encode(LOADING_TEXTS, show_progress_bar=False).shape
    except KeyError as error:  # the library looks for an output that only a pooling layer makes
        raise ModelError("model-wrong-kind", f"models.text: the model gives no {error} for a text") from error
    if len(shape) != 2 or shape[0] != len(LOADING_TEXTS):
        raise ModelError("model-wrong-kind", f"models.text: the model gives {shape} for {len(LOADING_TEXTS)} texts")
    return int(shape[1])
