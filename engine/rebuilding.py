"""A ledger that is new while its store is not: what the store remembers of finished videos is entered into it."""

import os
from collections.abc import Callable
from pathlib import Path

from engine.config import Config
from engine.ledger import Ledger
from engine.ledger_rescue import rebuild
from stages.errors import StoreUnavailable
from stages.store import VIDEOS, stored_videos


def rebuild_from_store(ledger: Ledger, config: Config, say: Callable[[str], None]) -> None:
    """Do it where there is something to do. Without it nothing is lost either: all files are indexed again.

    Raises:
        StoreError: the store refuses. LedgerUnavailable.
    """
    if ledger.videos.counts() or not _may_remember(config):
        return
    from stages.qdrant import open_store  # the supervisor has no other use for it

    store = open_store(config.store, os.environ.get(config.store.api_key_env), read_only=True)
    try:
        with ledger.transaction():  # all or nothing: a ledger with some videos in it is not taken for new
            count = rebuild(ledger, stored_videos(store))
    except StoreUnavailable as away:
        say(f"the ledger is new and the store cannot be asked what it holds ({away.code}): all files are indexed again")
        return
    finally:
        store.close()
    if count:
        say(f"the ledger is new: {count} finished videos were entered from the store; their files are hashed again")


def _may_remember(config: Config) -> bool:
    return config.store.url is not None or (Path(config.store.path) / f"{config.store.prefix}_{VIDEOS}").is_dir()
