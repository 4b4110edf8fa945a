"""BM25 vectors for both stores, made by Qdrant Edge's own tokenizer, so that either store finds the same words."""

from functools import cache

import qdrant_edge as edge

from stages.store import SparseVector, StoredPoint

# Speech comes in any language, often in several within one archive: no stemmer and no stop words, whose place the
# collection's IDF takes; accents are folded. The multilingual tokenizer also cuts Chinese and Japanese into words.
_AVERAGE_WORDS = 40.0  # of a segment: people say 2 to 3 words a second, and segments last 5 to 30 s


@cache
def _model() -> edge.Bm25:
    return edge.Bm25(
        edge.Bm25Config(
            avg_len=_AVERAGE_WORDS,
            tokenizer=edge.TokenizerType.Multilingual,
            lowercase=True,
            ascii_folding=True,
            stopwords=edge.StopwordsSet(),
            stemmer=edge.DisabledStemmer(),
        )
    )


def query_vector(text: str) -> SparseVector | None:
    """Weight 1 for each distinct word; None when the text holds no word."""
    return _sparse(_model().embed_query(text))


def document_vector(point: StoredPoint) -> SparseVector | None:
    """The point's own sparse vector, or one made from payload["text"]; None when there is no word in it."""
    text = point.payload.get("text")
    if point.sparse is not None or not isinstance(text, str):
        return point.sparse
    return _sparse(_model().embed_document(text))


def _sparse(vector: edge.SparseVector) -> SparseVector | None:
    return SparseVector(vector.indices, vector.values) if vector.indices else None
