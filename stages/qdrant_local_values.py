"""Values and errors between stages.store and Qdrant Edge."""

from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from stages.errors import StoreError
from stages.qdrant_text import document_vector
from stages.store import SPARSE_VECTOR, Filter, SparseVector, StoredPoint, Vector
from stages.store_directory import full_error, locked_error

_RRF_K = 2  # the server's own default for reciprocal rank fusion
_FUSED = 100  # of each kind of search, at least, before their ranks are fused

EXACT_POINTS = 100_000  # up to so many, a search compares the vectors themselves: 6 ms
# Above, it takes so many by their codes and compares those: of a million frames it missed 0 of 300 true hits (limit 10)
# and 16 in a thousand (limit 100: hence 20 for each).
_CANDIDATES = 1000
_CANDIDATES_A_HIT = 20


def to_edge(point: StoredPoint, sparse: bool) -> edge.Point:
    vectors: dict[str, edge.NamedVector] = {name: _as_buffer(row) for name, row in point.vectors.items()}
    words = document_vector(point) if sparse else None
    if words is not None:
        vectors[SPARSE_VECTOR] = _sparse(words)
    return edge.Point(id=point.id, vector=vectors, payload=point.payload)


def _as_buffer(vector: Vector) -> Any:  # its stub names lists only
    """Edge reads floats out of a buffer at a third of the cost of a list (9 against 22 µs for a point of 512)."""
    return np.ascontiguousarray(vector, dtype=np.float32).data


def _sparse(vector: SparseVector) -> edge.SparseVector:
    return edge.SparseVector(list(vector.indices), list(vector.values))


def from_edge(collection: str, record: edge.Record) -> StoredPoint:
    vectors: dict[str, Any] = dict(record.vector) if isinstance(record.vector, dict) else {}
    words = vectors.pop(SPARSE_VECTOR, None)
    return StoredPoint(
        str(record.id),
        collection,
        record.payload or {},
        {name: np.asarray(row, dtype=np.float32) for name, row in vectors.items()},
        SparseVector(words.indices, words.values) if words is not None else None,
    )


def to_filter(filter: Filter | None) -> edge.Filter:
    conditions: list[edge.ConditionType] = []
    if filter is not None:
        conditions += [
            edge.FieldCondition(name, match=edge.MatchValue(value)) for name, value in filter.keywords().items()
        ]
        if filter.has_range():
            span = edge.RangeFloat(gte=filter.from_seconds, lt=filter.until_seconds)
            conditions.append(edge.FieldCondition("start_seconds", range=span))
        if filter.ids is not None:
            conditions.append(edge.HasIdCondition(set(filter.ids)))
    return edge.Filter(must=conditions)


def to_condition(filter: Filter | None) -> edge.Filter | None:
    """For reading. None, and no filter without conditions, for all points: Edge would list them all to look them up."""
    return to_filter(filter) if filter is not None and not filter.is_empty() else None


def to_query(
    vector_name: str,
    vector: list[float],
    words: SparseVector | None,
    limit: int,
    filter: edge.Filter | None,
    is_exact: bool,
) -> edge.QueryRequest:
    """With words, the ranks of both searches are fused. is_exact: the codes are not used."""
    dense = edge.Query.Nearest(vector, using=vector_name)
    if words is None:
        params = _params(limit, is_exact)
        return edge.QueryRequest(limit=limit, query=dense, filter=filter, params=params, with_payload=True)
    exact = edge.Query.Nearest(_sparse(words), using=SPARSE_VECTOR)
    candidates = max(limit, _FUSED)
    prefetches = [
        edge.Prefetch(limit=candidates, query=dense, filter=filter, params=_params(candidates, is_exact)),
        edge.Prefetch(limit=candidates, query=exact, filter=filter),
    ]
    fusion: Any = edge.Fusion.Rrf(k=_RRF_K)  # its stub does not say that it is a Fusion
    return edge.QueryRequest(limit=limit, prefetches=prefetches, query=fusion, with_payload=True)


def _params(limit: int, is_exact: bool) -> edge.SearchParams:
    if is_exact:
        return edge.SearchParams(quantization=edge.QuantizationSearchParams(ignore=True))
    oversampling = max(_CANDIDATES / limit, _CANDIDATES_A_HIT)
    return edge.SearchParams(quantization=edge.QuantizationSearchParams(rescore=True, oversampling=oversampling))


class EdgeErrors:
    """Turns what Edge raises inside a `with` into a StoreError; whatever else is raised goes on as it is."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        panicked = kind is not None and kind.__name__ == "PanicException"  # Rust's; the class cannot be imported
        if error is not None and (panicked or kind is Exception):
            raise _translate(self._path, " ".join(str(error).split()), panicked) from error


def edge_errors(path: Path) -> EdgeErrors:
    """Edge raises bare Exception, or panics, for everything that goes wrong inside it; its text tells what."""
    return EdgeErrors(path)


def _translate(path: Path, text: str, panicked: bool) -> StoreError:
    """Edge nests its errors: the cause stands at the end of a text that may be long, and is shown shortened."""
    shown = text if len(text) <= 300 else f"{text[:150]} … {text[-150:]}"
    if "WouldBlock" in text:
        return locked_error(path.parent, "another program that uses Qdrant Edge")
    if "os error 28" in text or "No space left" in text:
        return full_error(path)
    if "os error 13" in text or "os error 30" in text:  # EACCES, EROFS
        return StoreError("store-not-writable", f"{path} cannot be written: {shown}")
    if "Vector dimension error" in text:
        return StoreError("vector-size", f"{path}: {shown}; the store was made with another model")
    if panicked or text.startswith("Service runtime error"):  # what Edge says of its own files
        return damaged(path, shown)
    return StoreError("store-refused", f"{path}: {shown}")


def damaged(path: Path, text: str) -> StoreError:
    return StoreError("store-damaged", f"{path}: {text}; restore it from a copy, or delete it and ingest again")
