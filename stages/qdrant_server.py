"""The store on a Qdrant server, through qdrant-client over REST. It never retries: its caller does, with back-off."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from stages.errors import StoreError, StoreUnavailable
from stages.options import StoreOptions
from stages.qdrant_server_values import from_record, to_filter, to_query, to_struct, vector_params
from stages.qdrant_text import query_vector
from stages.store import (
    SPARSE_VECTOR,
    CollectionSpec,
    Filter,
    Hit,
    StoredPoint,
    Vector,
    as_floats,
    check_filter_for_delete,
    check_spec,
    check_vectors,
)

log = logging.getLogger(__name__)

_REQUEST_POINTS = 256  # a server refuses bodies over 32 MB, and larger batches time out when it is busy


class ServerStore:
    """A Store on a Qdrant server. May be called from several threads.

    Raises StoreError: store-url, store-not-authorised, store-refused (any other 4xx);
    StoreUnavailable: store-unreachable, store-timeout, store-busy (429), store-unavailable (5xx).
    """

    def __init__(self, options: StoreOptions, api_key: str | None, read_only: bool = False) -> None:
        self._url = options.url or ""
        self._prefix = options.prefix
        self._key_env = options.api_key_env
        self._read_only = read_only
        self._sparse: dict[str, bool] = {}  # collection → whether it has BM25, once that is known
        self._client = _client(self._url, options.timeout_seconds, api_key)

    # --- schema ---

    def ensure(self, specs: Sequence[CollectionSpec]) -> None:
        for spec in specs:
            info = self._info(spec.name)
            if info is None and not self._read_only:
                self._create(spec)
                info = self._info(spec.name)  # another process may have been quicker, with another model
            if info is not None:
                self._verify(spec, info)
                self._index(spec, info)

    def _verify(self, spec: CollectionSpec, info: models.CollectionInfo) -> None:
        found = info.config.params
        sizes = {name: params.size for name, params in found.vectors.items()} if isinstance(found.vectors, dict) else {}
        check_spec(spec, self._name(spec.name), self._url, sizes, SPARSE_VECTOR in (found.sparse_vectors or {}))

    def _create(self, spec: CollectionSpec) -> None:
        sparse = {SPARSE_VECTOR: models.SparseVectorParams(modifier=models.Modifier.IDF)}
        with self._errors(accept=409):  # it exists by now
            self._client.create_collection(
                self._name(spec.name),
                vectors_config={vector: vector_params(size) for vector, size in spec.vectors.items()},
                sparse_vectors_config=sparse if spec.sparse else None,
            )

    def _index(self, spec: CollectionSpec, info: models.CollectionInfo) -> None:
        """Make the payload indexes that are not there: all of a new collection, or those a crash left out."""
        fields = dict.fromkeys(spec.keywords, models.PayloadSchemaType.KEYWORD)
        fields |= dict.fromkeys(spec.floats, models.PayloadSchemaType.FLOAT)
        for field_name in fields.keys() - info.payload_schema.keys() if not self._read_only else ():
            with self._errors():
                self._client.create_payload_index(self._name(spec.name), field_name, fields[field_name], wait=True)

    def _info(self, collection: str) -> models.CollectionInfo | None:
        """What the server says about the collection; None when there is no such collection."""
        info: models.CollectionInfo | None = None
        with self._errors(missing=True):
            info = self._client.get_collection(self._name(collection))
            self._sparse[collection] = SPARSE_VECTOR in (info.config.params.sparse_vectors or {})
        return info

    def _has_sparse(self, collection: str) -> bool:
        if collection not in self._sparse:
            self._info(collection)
        return self._sparse.get(collection, False)

    # --- writing ---

    def upsert(self, collection: str, points: Sequence[StoredPoint]) -> None:
        self._check_writable()
        check_vectors(collection, points)
        sparse = self._has_sparse(collection)
        for first in range(0, len(points), _REQUEST_POINTS):
            batch = [to_struct(point, sparse) for point in points[first : first + _REQUEST_POINTS]]
            with self._errors():
                self._check_done(self._client.upsert(self._name(collection), batch, wait=True))

    def put(self, collection: str, points: Sequence[StoredPoint]) -> None:
        """A server tells of every write when it is durable: to wait for that costs no flush of ours."""
        self.upsert(collection, points)

    def flush(self) -> None:
        """Nothing: what was put is durable."""

    def set_payload(self, collection: str, filter: Filter, payload: Mapping[str, Any]) -> None:
        self._check_writable()
        with self._errors(missing=True):
            name = self._name(collection)
            self._check_done(self._client.set_payload(name, dict(payload), points=to_filter(filter), wait=True))

    def set_payloads(self, collection: str, payloads: Mapping[str, Mapping[str, Any]]) -> None:
        self._check_writable()
        each = list(payloads.items())
        for first in range(0, len(each), _REQUEST_POINTS):
            operations = [
                models.SetPayloadOperation(
                    set_payload=models.SetPayload(payload=dict(payload), filter=to_filter(Filter(ids=(id_,))))
                )
                for id_, payload in each[first : first + _REQUEST_POINTS]
            ]
            with self._errors(missing=True):
                for result in self._client.batch_update_points(self._name(collection), operations, wait=True):
                    self._check_done(result)

    def delete(self, collection: str, filter: Filter) -> None:
        check_filter_for_delete(filter)
        self._check_writable()
        with self._errors(missing=True):
            selector = models.FilterSelector(filter=to_filter(filter))
            self._check_done(self._client.delete(self._name(collection), selector, wait=True))

    def optimize(self) -> None:
        """Nothing: a server optimizes by itself."""

    # --- reading ---

    def search(
        self,
        collection: str,
        vector_name: str,
        vector: Vector,
        limit: int,
        filter: Filter | None = None,
        text: str | None = None,
    ) -> list[Hit]:
        words = query_vector(text) if text is not None and self._has_sparse(collection) else None
        query = to_query(vector_name, as_floats(vector), words, limit, to_filter(filter))
        found: list[models.ScoredPoint] = []
        with self._errors(missing=True):
            found = self._client.query_points(self._name(collection), limit=limit, with_payload=True, **query).points
        return [Hit(point.score, str(point.id), collection, point.payload or {}) for point in found]

    def scroll(
        self,
        collection: str,
        with_vectors: bool,
        filter: Filter | None = None,
        page: int = 256,
        start: str | None = None,
    ) -> Iterator[StoredPoint]:
        offset: Any = start
        while True:
            records: list[models.Record] = []
            with self._errors(missing=True):
                records, offset = self._client.scroll(
                    self._name(collection), to_filter(filter), page, offset=offset, with_vectors=with_vectors
                )
            for record in records:
                yield from_record(collection, record)
            if offset is None:
                return

    def count(self, collection: str, filter: Filter | None = None) -> int:
        with self._errors(missing=True):
            return self._client.count(self._name(collection), to_filter(filter), exact=True).count
        return 0

    def close(self) -> None:
        self._client.close()

    # --- helpers ---

    def _name(self, collection: str) -> str:
        return f"{self._prefix}_{collection}"

    def _check_writable(self) -> None:
        if self._read_only:
            raise StoreError("store-read-only", f"the store at {self._url} was opened for reading only")

    def _check_done(self, result: models.UpdateResult) -> None:
        """A server under load may answer 200 and yet not have applied the write."""
        if result.status != models.UpdateStatus.COMPLETED:
            raise StoreUnavailable("store-timeout", f"{self._url} has not finished a write yet ({result.status})")

    @contextmanager
    def _errors(self, missing: bool = False, accept: int | None = None) -> Iterator[None]:
        """Translate what qdrant-client raises. missing: a collection that is not there is no error."""
        try:
            yield
        except UnexpectedResponse as error:
            absent = missing and error.status_code == 404 and b"doesn't exist" in error.content
            if not absent and error.status_code != accept:
                raise self._refusal(error.status_code or 0, error.content) from error
        except ResourceExhaustedResponse as error:
            message = f"{self._url} asks to wait {error.retry_after_s} s (429)"
            raise StoreUnavailable("store-busy", message) from error
        except ResponseHandlingException as error:
            raise self._no_answer(error.source) from error

    def _refusal(self, status: int, content: bytes) -> StoreError:
        text = f"{self._url} answered {status}: {_one_line(content.decode(errors='replace'))}"
        if status in {401, 403}:
            return StoreError(
                "store-not-authorised", f"{text}; set the environment variable {self._key_env} to its API key"
            )
        if status == 429:
            return StoreUnavailable("store-busy", text)
        if status >= 500 or status == 408:
            return StoreUnavailable("store-unavailable", text)
        if "Vector dimension error" in text:
            return StoreError("vector-size", f"{text}; the store was made with another model")
        return StoreError("store-refused", f"{text}; is store.url right?")

    def _no_answer(self, source: Exception) -> StoreError:
        text = _one_line(str(source)) or type(source).__name__
        if isinstance(source, httpx.TimeoutException):
            message = (
                f"{self._url} did not answer in time ({type(source).__name__}); store.timeout_seconds sets how long"
            )
            return StoreUnavailable("store-timeout", message)
        if isinstance(source, httpx.TransportError) and not isinstance(source, httpx.UnsupportedProtocol):
            return StoreUnavailable("store-unreachable", f"{self._url} cannot be reached: {text}; is store.url right?")
        return StoreError("store-refused", f"{self._url} does not answer like Qdrant: {text}; is store.url right?")


def _client(url: str, timeout_seconds: float, api_key: str | None) -> QdrantClient:
    """The key goes in as a header: given as api_key, qdrant-client turns the plain-HTTP case into a Python warning."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise StoreError("store-url", f"store.url is {url!r}: it must look like https://HOST:6333")
    if api_key and parts.scheme == "http" and parts.hostname not in {"127.0.0.1", "::1", "localhost"}:
        log.warning("the API key goes to %s unencrypted: use https in store.url", url)
    return QdrantClient(
        url=url,
        timeout=math.ceil(timeout_seconds),
        headers={"api-key": api_key} if api_key else None,
        check_compatibility=False,  # it asks in a thread of its own and warns; a server that is too old answers 4xx
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
