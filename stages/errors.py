"""The exception tree.

SluiceError
├── MediaError            a file, or a span of it, cannot be indexed
├── ModelError            a model cannot be had or is of the wrong kind
├── StoreError            the store refuses: wrong vector size, locked, full, not authorised
│   └── StoreUnavailable  the store is away for now: worth a retry
├── LedgerUnavailable     (engine/ledger_schema.py) the ledger cannot be read or written for now: worth a retry
├── LedgerDamaged         (engine/ledger_schema.py) its file is damaged: a restart sets it aside
├── Held                  (engine/locks.py) another process has it
├── ConfigError           (engine/errors.py) a setting is wrong
└── StartError            (engine/errors.py) a component could not start

`code` is a stable kebab-case word for reports; the message is one line: what, where, and which setting mends it.
"""


class SluiceError(Exception):
    """An expected error: it is shown in one line, without a traceback."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class MediaError(SluiceError):
    """A file, or a span of it, cannot be indexed."""


class ModelError(SluiceError):
    """A model cannot be had, or is of the wrong kind."""


class StoreError(SluiceError):
    """The store refuses, and a retry would not help."""


class StoreUnavailable(StoreError):
    """The store is away for now; the same call may succeed later."""
