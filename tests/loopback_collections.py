"""What the loopback server does with a request, below HTTP: REST bodies turned into calls of Edge."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import qdrant_edge as edge

Json = dict[str, Any]

_DATATYPES = {"float32": edge.VectorStorageDatatype.Float32, "float16": edge.VectorStorageDatatype.Float16}
_SCHEMAS = {"keyword": edge.PayloadSchemaType.Keyword, "float": edge.PayloadSchemaType.Float}
_HNSW = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000}
_OPTIMIZERS = {"default_segment_number": 0, "flush_interval_sec": 5}
_RRF_K = 2  # what Qdrant uses when a fusion query does not say


class Refusal(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Collections:
    """Collections in shards of Edge below a directory; one request at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._shards = {path.name: edge.EdgeShard.load(str(path)) for path in directory.iterdir() if path.is_dir()}
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            for shard in self._shards.values():
                shard.close()
            self._shards.clear()

    def handle(self, method: str, name: str, rest: str, body: Json) -> Any:
        """Result of one request on one collection. Raises Refusal."""
        with self._lock:
            return self._dispatch(f"{method} {rest}".strip(), name, body)

    def names(self) -> Json:
        return {"collections": [{"name": name} for name in sorted(self._shards)]}

    def _dispatch(self, request: str, name: str, body: Json) -> Any:
        if request == "GET exists":
            return {"exists": name in self._shards}
        if request == "PUT":
            return self._create(name, body)
        if name not in self._shards:
            raise Refusal(404, f"Not found: Collection `{name}` doesn't exist!")
        if request == "DELETE":
            return self._drop(name)
        if request == "GET":
            return self._describe(name)
        operation = _OPERATIONS.get(request)
        if operation is None:
            raise Refusal(404, f"the loopback server does not know {request}")
        try:
            return operation(self._shards[name], body)
        except Exception as error:
            if type(error) is not Exception:  # Edge raises bare Exception for bad requests
                raise
            raise Refusal(400, f"Wrong input: {error}") from error

    def _create(self, name: str, body: Json) -> bool:
        if name in self._shards:
            raise Refusal(409, f"Wrong input: Collection `{name}` already exists!")
        path = self._directory / name
        path.mkdir()
        vectors = {key: _vector_params(value) for key, value in body.get("vectors", {}).items()}
        sparse = {key: _sparse_params(value) for key, value in (body.get("sparse_vectors") or {}).items()}
        config = edge.EdgeConfig(
            vectors=vectors, sparse_vectors=sparse, optimizers=edge.EdgeOptimizersConfig(indexing_threshold=0)
        )
        self._shards[name] = edge.EdgeShard.create(str(path), config)
        return True

    def _drop(self, name: str) -> bool:
        self._shards.pop(name).close()
        shutil.rmtree(self._directory / name)
        return True

    def _describe(self, name: str) -> Json:
        info = self._shards[name].info()
        config = json.loads((self._directory / name / "edge_config.json").read_bytes())
        schema = {
            key: {"data_type": "float" if value.data_type == edge.PayloadSchemaType.Float else "keyword", "points": 0}
            for key, value in info.payload_schema.items()
        }
        params = {"vectors": config["vectors"], "sparse_vectors": config["sparse_vectors"] or None}
        return {
            "status": "green",
            "optimizer_status": "ok",
            "points_count": info.points_count,
            "segments_count": info.segments_count,
            "config": {"params": params, "hnsw_config": _HNSW, "optimizer_config": _OPTIMIZERS},
            "payload_schema": schema,
        }


def _vector_params(body: Json) -> edge.EdgeVectorParams:
    datatype = _DATATYPES[body.get("datatype") or "float32"]
    return edge.EdgeVectorParams(size=body["size"], distance=edge.Distance.Cosine, datatype=datatype)


def _sparse_params(body: Json) -> edge.EdgeSparseVectorParams:
    return edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if body.get("modifier") == "idf" else None)


# --- operations on one collection: (shard, body) → result -----------------------------------------------------------


def _apply(shard: edge.EdgeShard, operation: edge.UpdateOperation) -> Json:
    shard.update(operation)
    shard.flush()
    return {"operation_id": 0, "status": "completed"}


def _upsert(shard: edge.EdgeShard, body: Json) -> Json:
    points = [edge.Point(id=p["id"], vector=_vectors(p["vector"]), payload=p.get("payload")) for p in body["points"]]
    return _apply(shard, edge.UpdateOperation.upsert_points(points))


def _set_payload(shard: edge.EdgeShard, body: Json) -> Json:
    operation = edge.UpdateOperation.set_payload_by_filter(_filter(body.get("filter")), body["payload"])
    return _apply(shard, operation)


def _batch(shard: edge.EdgeShard, body: Json) -> list[Json]:
    """Each operation of the batch; only those that Sluice sends."""
    return [_set_payload(shard, each["set_payload"]) for each in body["operations"]]


def _delete(shard: edge.EdgeShard, body: Json) -> Json:
    return _apply(shard, edge.UpdateOperation.delete_points_by_filter(_filter(body["filter"])))


def _index(shard: edge.EdgeShard, body: Json) -> Json:
    operation = edge.UpdateOperation.create_field_index(body["field_name"], _SCHEMAS[body["field_schema"]])
    return _apply(shard, operation)


def _retrieve(shard: edge.EdgeShard, body: Json) -> list[Json]:
    records = shard.retrieve(body["ids"], bool(body.get("with_payload", True)), bool(body.get("with_vector")))
    return [_record(record) for record in records]


def _scroll(shard: edge.EdgeShard, body: Json) -> Json:
    request = edge.ScrollRequest(
        offset=body.get("offset"),
        limit=body.get("limit", 10),
        filter=_filter(body.get("filter")),
        with_payload=bool(body.get("with_payload", True)),
        with_vector=bool(body.get("with_vector")),
    )
    records, following = shard.scroll(request)
    return {"points": [_record(record) for record in records], "next_page_offset": following and str(following)}


def _count(shard: edge.EdgeShard, body: Json) -> Json:
    return {"count": shard.count(edge.CountRequest(exact=True, filter=_filter(body.get("filter"))))}


def _search(shard: edge.EdgeShard, body: Json) -> Json:
    prefetches = [
        edge.Prefetch(limit=each["limit"], query=_query(each), filter=_filter(each.get("filter")))
        for each in body.get("prefetch") or []
    ]
    request = edge.QueryRequest(
        limit=body.get("limit", 10),
        prefetches=prefetches,
        query=_query(body),
        filter=_filter(body.get("filter")),
        with_payload=bool(body.get("with_payload")),
    )
    points = shard.query(request)
    return {"points": [{"id": str(p.id), "version": 0, "score": p.score, "payload": p.payload} for p in points]}


def _query(body: Json) -> Any:
    query = body["query"]
    if isinstance(query, dict) and "fusion" in query:
        return edge.Fusion.Rrf(k=_RRF_K)
    if isinstance(query, dict) and "nearest" in query:
        query = query["nearest"]
    return edge.Query.Nearest(_vector(query), using=body["using"])


def _vector(value: Any) -> Any:
    return edge.SparseVector(value["indices"], value["values"]) if isinstance(value, dict) else value


def _vectors(values: Json) -> dict[str, Any]:
    return {name: _vector(value) for name, value in values.items()}


def _record(record: edge.Record) -> Json:
    vectors: Any = record.vector
    if isinstance(vectors, dict):
        vectors = {
            name: {"indices": value.indices, "values": value.values} if isinstance(value, edge.SparseVector) else value
            for name, value in vectors.items()
        }
    return {"id": str(record.id), "payload": record.payload, "vector": vectors}


def _filter(body: Json | None) -> edge.Filter:
    return edge.Filter(must=[_condition(each) for each in (body or {}).get("must") or []])


def _condition(body: Json) -> Any:
    if "has_id" in body:
        return edge.HasIdCondition(set(body["has_id"]))
    if body.get("range"):
        bounds = {name: value for name, value in body["range"].items() if value is not None}
        return edge.FieldCondition(body["key"], range=edge.RangeFloat(**bounds))
    return edge.FieldCondition(body["key"], match=edge.MatchValue(body["match"]["value"]))


_OPERATIONS = {
    "PUT points": _upsert,
    "POST points": _retrieve,
    "POST points/payload": _set_payload,
    "POST points/batch": _batch,
    "POST points/delete": _delete,
    "POST points/scroll": _scroll,
    "POST points/count": _count,
    "POST points/query": _search,
    "PUT index": _index,
}
