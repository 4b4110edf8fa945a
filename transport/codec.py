"""Messages to bytes and back, and arrays checked before use."""

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from transport.messages import ArraySpec, Message

_encoder = msgspec.msgpack.Encoder()


class WireError(Exception):
    """What arrived is not what its header says, or no message at all."""


def encode(message: Message) -> bytes:
    """The message as MessagePack, tagged with its type."""
    return _encoder.encode(message)


def spec_of(array: NDArray[Any]) -> ArraySpec:
    """Shape and dtype of an array that is about to be sent.

    Raises:
        WireError: the dtype does not travel.
    """
    try:
        return msgspec.convert({"dtype": array.dtype.name, "shape": array.shape}, ArraySpec)
    except msgspec.ValidationError as error:
        raise WireError(f"array of dtype {array.dtype} cannot be sent: {error}") from error


def size_of(spec: ArraySpec) -> int:
    """Bytes of the array that `spec` describes."""
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def as_array(spec: ArraySpec, payload: memoryview | bytes) -> NDArray[Any]:
    """The payload seen as an array, without a copy.

    Raises:
        WireError: its length is not what shape and dtype say, or a dimension is negative.
    """
    length = memoryview(payload).nbytes
    if min(spec.shape, default=0) < 0 or length != size_of(spec):
        raise WireError(f"payload of {length} bytes does not hold {spec.dtype} {list(spec.shape)}")
    array: NDArray[Any] = np.frombuffer(payload, dtype=spec.dtype).reshape(spec.shape)
    return array


def cost_of(header: bytes, payload: NDArray[Any] | None) -> int:
    """Bytes of credit that a message takes: both its frames."""
    return len(header) + (payload.nbytes if payload is not None else 0)
