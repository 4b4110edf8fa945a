"""Runs a batch on its model. A batch that fails is halved and tried again, down to one item; an item that fails alone
is named with its reason, and its neighbours keep their results.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.base import Model

# What the libraries below torch say when memory is gone: they raise a plain RuntimeError.
OUT_OF_MEMORY_TEXTS = (
    "out of memory",  # torch, and CTranslate2: "CUDA failed with error out of memory"
    "CUBLAS_STATUS_ALLOC_FAILED",  # "cuBLAS failed with status …"
    "CUBLAS_STATUS_NOT_INITIALIZED",  # what cuBLAS says when there is no room for its own workspace
    "std::bad_alloc",
    "mkl_malloc: failed to allocate",  # CTranslate2 on the CPU
    "could not create a memory object",  # oneDNN on the CPU
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item has no result."""

    code: str  # out-of-memory | model-error
    message: str


@dataclass(slots=True)
class RunCounters:
    """What a model has done since the start."""

    items: int = 0
    batches: int = 0
    busy_seconds: float = 0.0
    oom_events: int = 0
    batch_splits: int = 0


def is_out_of_memory(error: Exception) -> bool:
    """Whether a library's exception means that device (or host) memory is gone.

    torch raises torch.OutOfMemoryError, a RuntimeError whose text holds "out of memory"; CTranslate2 and cuBLAS raise a
    plain RuntimeError known only by its text.
    """
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY_TEXTS)


def release_device_memory() -> None:
    """Give what Python and torch's allocator hold without need back to the device."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Runner:
    """Owns the models. Knows nothing of tasks, videos or sockets."""

    def __init__(
        self,
        models: Mapping[str, Model],
        release: Callable[[], None] = release_device_memory,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.models = models
        self.counters = {role: RunCounters() for role in models}
        self._release = release
        self._clock = clock

    def run(self, role: str, inputs: Sequence[Any]) -> list[Any]:
        """One result for each input, in order: the model's, or a `Failure`."""
        counters = self.counters[role]
        started = self._clock()
        outcomes = self._attempt(role, inputs)
        counters.busy_seconds += self._clock() - started
        counters.items += len(inputs)
        counters.batches += 1
        return outcomes

    def _attempt(self, role: str, inputs: Sequence[Any]) -> list[Any]:
        outcome = self._call(role, inputs)
        if not isinstance(outcome, Failure):
            return outcome
        # Outside the except block: inside it the traceback would keep the failed batch's tensors alive.
        if outcome.code == "out-of-memory":
            self.counters[role].oom_events += 1
            self._release()
        if len(inputs) == 1:
            return [outcome]
        self.counters[role].batch_splits += 1
        middle = len(inputs) // 2
        return self._attempt(role, inputs[:middle]) + self._attempt(role, inputs[middle:])

    def _call(self, role: str, inputs: Sequence[Any]) -> list[Any] | Failure:
        try:
            results = self.models[role].run(inputs)
        except Exception as error:  # noqa: BLE001 - whatever a model raises fails its items, visibly, and nothing else
            code = "out-of-memory" if is_out_of_memory(error) else "model-error"
            return Failure(code, f"{type(error).__name__}: {_first_line(error)}")
        if len(results) != len(inputs):
            return Failure("model-error", f"{role} model gave {len(results)} results for {len(inputs)} items")
        return results


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"
