"""Places at which a harness can have a process killed: between two steps that must be safe in either order of death.

SLUICE_FAILPOINT="NAME:COUNT:FILE" kills whoever reaches NAME for the COUNT-th time, once: FILE is made first, and while
it is there nothing more happens. Without the variable `reach` costs a comparison.
"""

import os
import signal
from collections import Counter
from pathlib import Path

VARIABLE = "SLUICE_FAILPOINT"
BEFORE_UPSERT = "before-upsert"
AFTER_UPSERT = "after-upsert"
BEFORE_CREDIT = "before-credit"  # of what is durable goes back to the engine
BEFORE_COMMIT = "before-commit"  # of the ledger
AFTER_COMMIT = "after-commit"
DURING_SPOOL_FLUSH = "during-spool-flush"
DURING_REPLAY = "during-replay"
DURING_START = "during-start"
DURING_DRAIN = "during-drain"
NAMES = (
    BEFORE_UPSERT, AFTER_UPSERT, BEFORE_CREDIT, BEFORE_COMMIT, AFTER_COMMIT, DURING_SPOOL_FLUSH, DURING_REPLAY,
    DURING_START, DURING_DRAIN,
)  # fmt: skip

_SETTING = os.environ.get(VARIABLE)
_reached: Counter[str] = Counter()


def reach(name: str) -> None:
    """This process is at `name`."""
    if _SETTING is None:
        return
    wanted, count, file = _SETTING.split(":", 2)
    _reached[name] += 1
    if name == wanted and _reached[name] == int(count) and not Path(file).exists():
        Path(file).write_text(f"{os.getpid()}\n")
        os.kill(os.getpid(), signal.SIGKILL)
