"""Search: the query becomes a vector by the text tower of the model that made the stored ones, and the store finds the
nearest. Runs in the process that calls it, with the models' text sides only.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from engine.config import Config
from engine.errors import ConfigError
from engine.search_flow import ROLE_OF, collections_of, shown_hit
from stages.base import Identity, Role, Vector
from stages.qdrant import open_store
from stages.registry import configured, identify, resolve
from stages.store import FRAMES, SPEECH, VOICES, Filter, Hit, Store, StoredPoint


def search(
    config: Config, query: str, within: str, limit: int, speaker: str | None = None, hybrid: bool = False
) -> dict[str, Any]:
    """Find the frames and speech nearest to a query.

    within: frames | speech | all. hybrid: also match words (BM25), fused by rank; its scores are no cosines.

    Returns:
        {"query", "hits": [{"score", "kind", "video_id", "path", "start_seconds", "end_seconds", "text", "source",
        "speaker"}]}

    Raises:
        SluiceError: a model or the store cannot be had.
    """
    names = collections_of(within, {role for role, _ in configured(config.models)})
    store = open_store(config.store, os.environ.get(config.store.api_key_env), read_only=True)
    try:
        hits: list[Hit] = []
        for name in names:
            words = query if hybrid and name == SPEECH else None
            hits += _hits(store, config, name, ROLE_OF[name], query, limit, speaker, words)
    finally:
        store.close()
    # Scores of two models are on two scales: all shows the kinds one after the other, each in its own order.
    return {"query": query, "hits": [shown_hit(hit.collection, hit.score, hit.payload) for hit in hits]}


def _hits(
    store: Store,
    config: Config,
    collection: str,
    role: Role,
    query: str,
    limit: int,
    speaker: str | None,
    words: str | None = None,
) -> list[Hit]:
    """The nearest points that the same model made: vectors of two models cannot be compared."""
    any_point = _first(store, collection)
    if any_point is None:
        return []
    source: str = getattr(config.models, role)
    path = resolve(role, source, Path(config.models.directory))
    identity = identify(role, source, path)
    label = identity.info(role, 0).label
    if _first(store, collection, Filter(model=label)) is None:
        made_by = any_point.payload["model"]
        raise ConfigError(
            "other-model",
            f"the {collection} in the store were made by {made_by}, and models.{role} is {label}: "
            "set it to what made them, or ingest again with this one",
        )
    vector = _QUERY_VECTOR[role](path, identity, query)
    return store.search(collection, role, vector, limit, Filter(model=label, speaker=speaker), text=words)


def _first(store: Store, collection: str, filter: Filter | None = None) -> StoredPoint | None:
    """Any matching point: to count a million of them takes half a second."""
    return next(store.scroll(collection, False, filter, page=1), None)


def _image_query(path: Path, identity: Identity, query: str) -> Vector:
    from stages.image_model import ImageModel

    model = ImageModel.load(path, identity, device="cpu", dtype="float32", towers="text")
    return cast(Vector, model.embed_texts([query])[0])


def _text_query(path: Path, identity: Identity, query: str) -> Vector:
    from stages.text_model import TextModel

    return cast(Vector, TextModel.load(path, identity, device="cpu", dtype="float32").embed_queries([query])[0])


_QUERY_VECTOR = {"image": _image_query, "text": _text_query}


def all_points(config: Config, collection: str | None, with_vectors: bool) -> Iterator[dict[str, Any]]:
    """Every stored point as {"collection", "id", "payload", "vectors"}, streamed in the order of ids.

    Raises:
        StoreError: the store is not there, is locked by a running process, or refuses.
    """
    store = open_store(config.store, os.environ.get(config.store.api_key_env), read_only=True)
    try:
        for name in (collection,) if collection else (FRAMES, SPEECH, VOICES):
            for point in store.scroll(name, with_vectors):
                vectors = {key: [float(value) for value in row] for key, row in point.vectors.items()}
                yield {
                    "collection": name,
                    "id": point.id,
                    "payload": point.payload,
                    "vectors": vectors if with_vectors else None,
                }
    finally:
        store.close()
