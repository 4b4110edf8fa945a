"""Open the store that the settings name."""

import re
from pathlib import Path

from stages.errors import StoreError
from stages.options import StoreOptions
from stages.qdrant_local import LocalStore
from stages.store import Store

_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # part of a directory name and of a URL


def open_store(options: StoreOptions, api_key: str | None, read_only: bool = False) -> Store:
    """The server at store.url, or else the embedded store in store.path. Opening a server does not connect yet.

    read_only: nothing is created and writes are refused. Raises what LocalStore and ServerStore raise, and StoreError
    "store-prefix".
    """
    if not _PREFIX.fullmatch(options.prefix):
        raise StoreError("store-prefix", f"store.prefix is {options.prefix!r}: letters, digits, - and _ only")
    if options.url is None:
        return LocalStore(Path(options.path), options.prefix, read_only)
    from stages.qdrant_server import ServerStore  # takes most of a second to import, and most runs do not need it

    return ServerStore(options, api_key, read_only)
