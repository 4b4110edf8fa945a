"""The embedded store: Qdrant Edge, one shard a collection, in this process.

Edge holds the GIL in all that it does, updates included, so the store lives in a process of its own, and a thread that
converts one batch while another is put would only wait.
"""

import logging
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from stages.errors import StoreError, StoreUnavailable
from stages.qdrant_local_shard import CODED, Shard, load_shard, make_shard, may_recode, recode, size_bytes
from stages.qdrant_local_values import EXACT_POINTS, edge_errors, from_edge, to_condition, to_edge, to_filter, to_query
from stages.qdrant_text import query_vector
from stages.store import (
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
from stages.store_directory import RESERVE_BYTES, StoreDirectory, os_error, sync_directory

log = logging.getLogger(__name__)

_BYTES_A_DIMENSION = 16  # written for one number of one point: vector file, codes, and head room


class LocalStore:
    """A Store in a directory of this machine, for one process at a time. May be called from several threads.

    read_only makes nothing and refuses writes; it takes the same lock, for Edge knows only one kind.
    Raises what StoreDirectory raises.
    """

    def __init__(self, path: Path, prefix: str, read_only: bool = False, reserve_bytes: int = RESERVE_BYTES) -> None:
        self._directory = StoreDirectory(path, read_only, reserve_bytes)
        self._prefix = prefix
        self._read_only = read_only
        self._open: dict[str, Shard] = {}
        self._opening = threading.Lock()
        self._unflushed: set[str] = set()  # collections

    # --- schema ---

    def ensure(self, specs: Sequence[CollectionSpec]) -> None:
        for spec in specs:
            found = self._find(spec.name)
            if found is None and not self._read_only:
                self._create(spec)
            elif found is not None:
                check_spec(spec, self._path(spec.name).name, str(self._directory.path), found.sizes, found.sparse)
                if spec.name in CODED and not found.is_coded and not self._read_only:
                    self._recode(spec.name, found)

    def _create(self, spec: CollectionSpec) -> None:
        """Made aside and renamed, so that a collection is there whole or not at all."""
        path = self._path(spec.name)
        aside = path.with_name(f".new-{path.name}")
        self._directory.check_room(0)
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            with edge_errors(path):
                make_shard(aside, spec)
            aside.rename(path)
            sync_directory(path.parent)
        except OSError as error:
            raise os_error(path, error) from error

    def _recode(self, collection: str, found: Shard) -> None:
        """A collection that an older version made gets its codes, or is searched without them, as it was."""
        if not may_recode(found):
            return
        try:
            self._directory.check_room(size_bytes(found.path))
        except StoreUnavailable as full:
            log.warning("%s gets no codes for a quick search: %s", found.path, full.message)
            return
        with self._opening:
            del self._open[collection]
            self._open[collection] = recode(found)

    # --- writing ---

    def upsert(self, collection: str, points: Sequence[StoredPoint]) -> None:
        self.put(collection, points)
        self._flush(collection)

    def put(self, collection: str, points: Sequence[StoredPoint]) -> None:
        found = self._writable(collection)
        check_vectors(collection, points)
        self._directory.check_room(len(points) * sum(found.sizes.values()) * _BYTES_A_DIMENSION)
        self._unflushed.add(collection)
        self._update(found, edge.UpdateOperation.upsert_points([to_edge(point, found.sparse) for point in points]))

    def flush(self) -> None:
        for collection in sorted(self._unflushed):
            self._flush(collection)

    def _update(self, found: Shard, operation: edge.UpdateOperation) -> None:
        with edge_errors(found.path):
            found.edge.update(operation)

    def _flush(self, collection: str) -> None:
        self._unflushed.discard(collection)  # before: what another thread puts meanwhile must be marked after it
        self._open[collection].flush()

    def set_payload(self, collection: str, filter: Filter, payload: Mapping[str, Any]) -> None:
        if not self._has(collection):
            return
        found = self._writable(collection)
        self._directory.check_room(0)
        operation = edge.UpdateOperation.set_payload_by_filter(to_filter(filter), dict(payload))
        self._update(found, operation)
        self._flush(collection)

    def set_payloads(self, collection: str, payloads: Mapping[str, Mapping[str, Any]]) -> None:
        if not payloads or not self._has(collection):
            return
        found = self._writable(collection)
        self._directory.check_room(0)
        with edge_errors(self._path(collection)):
            for id_, payload in payloads.items():
                one = to_filter(Filter(ids=(id_,)))  # by an id alone, a point that is not there is an error
                found.edge.update(edge.UpdateOperation.set_payload_by_filter(one, dict(payload)))
        self._flush(collection)

    def delete(self, collection: str, filter: Filter) -> None:
        check_filter_for_delete(filter)
        if not self._has(collection):
            return
        found = self._writable(collection)
        self._directory.check_room(0)
        self._update(found, edge.UpdateOperation.delete_points_by_filter(to_filter(filter)))
        self._flush(collection)

    def optimize(self) -> None:
        """Vacuum: rewrites a collection of which a fifth is deleted (3 s for 200,000 points), with the GIL held.

        Housekeeping can wait: without room for a second copy it is left undone, and the log says so.
        """
        for path in sorted(self._directory.path.glob(f"{self._prefix}_*")):
            found = self._writable(path.name.removeprefix(f"{self._prefix}_"))
            try:
                self._directory.check_room(size_bytes(path))
            except StoreUnavailable as full:
                log.warning("%s keeps the room of its deleted points: %s", path, full.message)
                continue
            with edge_errors(path):
                found.edge.optimize()

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
        found = self._find(collection)
        if found is None:
            return []
        words = query_vector(text) if text is not None and found.sparse else None
        with edge_errors(self._path(collection)):
            narrowed = to_condition(found.without_common_model(filter) if found.is_coded else filter)
            is_exact = not found.is_coded or found.points_count <= EXACT_POINTS
            request = to_query(vector_name, as_floats(vector), words, limit, narrowed, is_exact)
            points = found.edge.query(request)
        return [Hit(point.score, str(point.id), collection, point.payload or {}) for point in points]

    def scroll(
        self,
        collection: str,
        with_vectors: bool,
        filter: Filter | None = None,
        page: int = 256,
        start: str | None = None,
    ) -> Iterator[StoredPoint]:
        found = self._find(collection)
        offset: edge.PointId | None = start
        while found is not None:
            request = edge.ScrollRequest(
                offset=offset, limit=page, filter=to_condition(filter), with_payload=True, with_vector=with_vectors
            )
            with edge_errors(self._path(collection)):
                records, offset = found.edge.scroll(request)
            for record in records:
                yield from_edge(collection, record)
            if offset is None:
                return

    def count(self, collection: str, filter: Filter | None = None) -> int:
        found = self._find(collection)
        if found is None:
            return 0
        with edge_errors(self._path(collection)):
            return found.edge.count(edge.CountRequest(exact=True, filter=to_condition(filter)))

    def close(self) -> None:
        with self._opening:
            while self._open:
                _, found = self._open.popitem()
                found.edge.close()
        self._directory.close()

    # --- collections ---

    def _path(self, collection: str) -> Path:
        return self._directory.path / f"{self._prefix}_{collection}"

    def _has(self, collection: str) -> bool:
        return self._path(collection).is_dir()

    def _find(self, collection: str) -> Shard | None:
        """Opened if need be."""
        with self._opening:
            if collection not in self._open and self._has(collection):
                self._directory.check_room_to_open()
                self._open[collection] = load_shard(self._path(collection))
            return self._open.get(collection)

    def _writable(self, collection: str) -> Shard:
        if self._read_only:
            raise StoreError("store-read-only", f"the store in {self._directory.path} was opened for reading only")
        found = self._find(collection)
        if found is None:
            raise StoreError("store-schema", f"there is no collection {self._path(collection)}: it was never made")
        return found
