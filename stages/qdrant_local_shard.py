"""One collection of the embedded store: an Edge shard, how it is made and opened, and the codes that a search scans.

What people search has a code of 2 bits a dimension beside each vector (TurboQuant: a fixed rotation, then rounding; so
it needs no training and no optimizer). A search scans the codes, an eighth of the bytes of the vectors, and compares
the best thousand by the vectors themselves.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import qdrant_edge as edge

from stages.qdrant_local_values import damaged, edge_errors
from stages.store import FRAMES, SPARSE_VECTOR, SPEECH, CollectionSpec, Filter

log = logging.getLogger(__name__)

CODED = (FRAMES, SPEECH)  # voices are read by pages, and never searched
_LARGEST_RECODED_BYTES = 4 << 30  # about 1.7 million frames, which take two minutes: a start may take five


@dataclass(frozen=True)
class Shard:
    """An open collection."""

    path: Path
    edge: edge.EdgeShard
    sizes: dict[str, int]  # vector name → dimension
    sparse: bool
    is_coded: bool

    def without_common_model(self, filter: Filter | None) -> Filter | None:
        """The filter, less a model that made every point: to look it up would cost as much as the search itself."""
        if filter is None or filter.model is None:
            return filter
        found = self.edge.facet(edge.FacetRequest("model", limit=2, exact=False)).hits
        is_common = [each.value for each in found] == [filter.model] and found[0].count >= self.points_count
        return replace(filter, model=None) if is_common else filter

    @property
    def points_count(self) -> int:
        return self.edge.info().points_count

    def flush(self) -> None:
        """To the disk: what is acknowledged survives a power cut, too."""
        with edge_errors(self.path):
            self.edge.flush()


def make_shard(path: Path, spec: CollectionSpec) -> None:
    """A new collection, in an empty directory."""
    shard = edge.EdgeShard.create(str(path), _config(spec))
    for name in spec.keywords:
        shard.update(edge.UpdateOperation.create_field_index(name, edge.PayloadSchemaType.Keyword))
    for name in spec.floats:
        shard.update(edge.UpdateOperation.create_field_index(name, edge.PayloadSchemaType.Float))
    shard.flush()
    shard.close()


def load_shard(path: Path) -> Shard:
    """Open a collection. Raises StoreError "store-locked", "store-damaged", "store-not-writable"."""
    with edge_errors(path):
        shard = edge.EdgeShard.load(str(path))
    try:
        config = json.loads((path / "edge_config.json").read_bytes())  # Edge does not tell its configuration otherwise
        sizes = {name: params["size"] for name, params in config["vectors"].items()}
        is_coded = bool(sizes) and all(params.get("quantization_config") for params in config["vectors"].values())
        return Shard(path, shard, sizes, SPARSE_VECTOR in config["sparse_vectors"], is_coded)
    except (OSError, ValueError, KeyError) as error:
        shard.close()
        raise damaged(path, f"edge_config.json cannot be read ({error!r})") from error


def may_recode(shard: Shard) -> bool:
    """Whether codes can be made for a collection of an older version in the time that a start may take."""
    if size_bytes(shard.path) <= _LARGEST_RECODED_BYTES:
        return True
    log.warning("%s has no codes for a quick search and is too large to make them now: see docs/store.md", shard.path)
    return False


def recode(shard: Shard) -> Shard:
    """Close it, and open it anew with codes for all its vectors. Edge writes a copy and swaps it in; 50 µs a point.

    Raises what load_shard raises.
    """
    log.info("making codes for a quick search of %d points in %s, once", shard.points_count, shard.path)
    started = time.monotonic()
    shard.edge.close()
    with edge_errors(shard.path):
        opened = edge.EdgeShard.load(str(shard.path), edge.EdgeConfig(vectors=_vectors(shard.sizes, True)))
        opened.optimize()
        opened.flush()
        opened.close()
    log.info("made them in %.0f s", time.monotonic() - started)
    return load_shard(shard.path)


def _config(spec: CollectionSpec) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors=_vectors(spec.vectors, spec.name in CODED),
        sparse_vectors={SPARSE_VECTOR: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)} if spec.sparse else {},
        # No HNSW: the scan of a million codes takes 9 ms; building the graph takes 15 minutes, with the GIL held.
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=0),
        # No log: nothing is acknowledged before a flush, which makes it durable without one, and at half the writes.
        wal_enabled=False,
    )


def _vectors(sizes: Mapping[str, int], is_coded: bool) -> dict[str, edge.EdgeVectorParams]:
    codes = edge.TurboQuantQuantizationConfig(bits=edge.TurboQuantBitSize.Bits2, memory=edge.Memory.Cached)
    return {
        name: edge.EdgeVectorParams(
            size=size,
            distance=edge.Distance.Cosine,
            datatype=edge.VectorStorageDatatype.Float16,  # as they arrive: half the disk and memory, the same answers
            quantization_config=codes if is_coded else None,
        )
        for name, size in sizes.items()
    }


def size_bytes(path: Path) -> int:
    """Bytes on disk, holes not counted."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())
