"""Values between stages.store and qdrant-client."""

from typing import Any

import numpy as np
from qdrant_client import models

from stages.qdrant_text import document_vector
from stages.store import SPARSE_VECTOR, Filter, SparseVector, StoredPoint, as_floats

_CANDIDATES = 100  # of each kind of search, at least, before their ranks are fused


def vector_params(size: int) -> models.VectorParams:
    # float16, as the vectors arrive: half the disk and memory, the same answers
    return models.VectorParams(
        size=size, distance=models.Distance.COSINE, datatype=models.Datatype.FLOAT16, on_disk=True
    )


def to_struct(point: StoredPoint, sparse: bool) -> models.PointStruct:
    vectors: dict[str, Any] = {name: as_floats(row) for name, row in point.vectors.items()}
    words = document_vector(point) if sparse else None
    if words is not None:
        vectors[SPARSE_VECTOR] = _sparse(words)
    return models.PointStruct(id=point.id, vector=vectors, payload=point.payload)


def _sparse(vector: SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=list(vector.indices), values=list(vector.values))


def from_record(collection: str, record: models.Record) -> StoredPoint:
    vectors: dict[str, Any] = dict(record.vector) if isinstance(record.vector, dict) else {}
    words = vectors.pop(SPARSE_VECTOR, None)
    return StoredPoint(
        str(record.id),
        collection,
        record.payload or {},
        {name: np.asarray(row, dtype=np.float32) for name, row in vectors.items()},
        SparseVector(words.indices, words.values) if words is not None else None,
    )


def to_filter(filter: Filter | None) -> models.Filter:
    conditions: list[models.Condition] = []
    if filter is not None:
        conditions += [
            models.FieldCondition(key=name, match=models.MatchValue(value=value))
            for name, value in filter.keywords().items()
        ]
        if filter.has_range():
            span = models.Range(gte=filter.from_seconds, lt=filter.until_seconds)
            conditions.append(models.FieldCondition(key="start_seconds", range=span))
        if filter.ids is not None:
            conditions.append(models.HasIdCondition(has_id=list(filter.ids)))
    return models.Filter(must=conditions)


def to_query(
    vector_name: str, vector: list[float], words: SparseVector | None, limit: int, filter: models.Filter
) -> dict[str, Any]:
    """Arguments of query_points."""
    if words is None:
        return {"query": vector, "using": vector_name, "query_filter": filter}
    candidates = max(limit, _CANDIDATES)
    dense = models.Prefetch(query=vector, using=vector_name, filter=filter, limit=candidates)
    exact = models.Prefetch(query=_sparse(words), using=SPARSE_VECTOR, filter=filter, limit=candidates)
    return {"prefetch": [dense, exact], "query": models.FusionQuery(fusion=models.Fusion.RRF)}
