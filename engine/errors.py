"""Exit codes, and the errors of the engine's own parts (the tree stands in stages/errors.py)."""

from enum import IntEnum

from stages.errors import SluiceError


class ExitCode(IntEnum):
    """Exit codes of run.py, and of its child processes (from 10 on)."""

    OK = 0
    USAGE = 2  # usage or configuration
    SOME_FAILED = 3  # some videos failed; they are named with reasons
    NO_START = 4  # a component could not start, or could not go on
    INTERRUPTED = 130  # Ctrl-C, or a second SIGTERM

    PARENT_DIED = 10  # child: its supervisor is gone
    CHILD_START_FAILED = 11  # child: an expected error while loading; it is the last line on stderr
    CHILD_CRASHED = 1  # child: an unexpected exception (Python's own code for it); its traceback is on stderr
    STORE_LOST = 12  # consumer: the store refused, or stayed away longer than store.retry_seconds
    DEVICE_LOST = 13  # engine: the device's context is poisoned, or the device is gone; a new process may go on
    RECYCLE = 14  # engine: device memory does not come back; it asks to be replaced by a fresh process


class ConfigError(SluiceError):
    """A setting is wrong, or unknown."""


class StartError(SluiceError):
    """A component could not start."""
