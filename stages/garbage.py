"""How often Python looks for cycles that nothing refers to any more."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_OBJECTS = 50_000  # Python's own 700 make it look through 400,000 objects, again and again, while it imports


@contextmanager
def collected_seldom() -> Iterator[None]:
    """For the time when modules are imported and models loaded, which make objects that stay: to look for cycles among
    them takes a seventh of the processor time that importing all model libraries takes, and finds next to nothing.
    """
    before = gc.get_threshold()
    gc.set_threshold(max(YOUNG_OBJECTS, before[0]) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
