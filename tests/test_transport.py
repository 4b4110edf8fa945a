"""Codec and channels: arrays are checked before use, and what is sent arrives over real sockets."""

from collections.abc import Iterator

import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from transport.codec import WireError, as_array, encode, size_of, spec_of
from transport.messages import ArraySpec, Caption, Frame, Grant, Join, TaskKey, ToEngine
from transport.sockets import Channel

shapes = st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple)


@given(shapes, st.sampled_from(["uint8", "int16", "float16", "float32"]))
def test_an_array_survives_the_wire(shape: tuple[int, ...], dtype: str) -> None:
    array = np.arange(int(np.prod(shape))).astype(dtype).reshape(shape)
    spec = spec_of(array)
    assert size_of(spec) == array.nbytes
    np.testing.assert_array_equal(as_array(spec, array.tobytes()), array)


@pytest.mark.parametrize("length", [0, 11, 13])
def test_a_payload_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(WireError, match="does not hold"):
        as_array(ArraySpec(dtype="uint8", shape=(3, 4)), bytes(length))


def test_a_negative_dimension_is_refused() -> None:
    with pytest.raises(WireError, match="does not hold"):
        as_array(ArraySpec(dtype="uint8", shape=(-2, -3)), bytes(6))


def test_a_dtype_that_does_not_travel_is_refused() -> None:
    with pytest.raises(WireError, match="complex128"):
        spec_of(np.zeros(2, dtype=np.complex128))


@pytest.fixture
def pair() -> Iterator[tuple[Channel[Join | Frame | Caption], Channel[Grant]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router: Channel[Join | Frame | Caption] = Channel.bind(context, "inproc://items", ToEngine)
    dealer: Channel[Grant] = Channel.connect(context, "inproc://items", Grant, b"decoder-1")
    yield router, dealer
    dealer.close()
    router.close()
    context.destroy(linger=0)


def test_a_frame_travels_with_its_pixels_and_its_cost(
    pair: tuple[Channel[Join | Frame | Caption], Channel[Grant]],
) -> None:
    router, dealer = pair
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    sent = Frame(key=TaskKey(1, 0), start_seconds=1.0, end_seconds=2.0, array=spec_of(pixels))
    cost = dealer.send(sent, pixels)
    received = router.receive(timeout_ms=2000)
    assert received is not None
    assert received.sender == b"decoder-1"
    assert received.message == sent
    assert received.cost_bytes == cost == len(encode(sent)) + 60
    assert received.payload is not None
    np.testing.assert_array_equal(as_array(sent.array, received.payload), pixels)
    router.send(Grant(credit_bytes=cost), to=b"decoder-1")
    answer = dealer.receive(timeout_ms=2000)
    assert answer is not None
    assert answer.message.credit_bytes == cost


def test_nothing_to_receive_gives_none(pair: tuple[Channel[Join | Frame | Caption], Channel[Grant]]) -> None:
    assert pair[0].receive(timeout_ms=0) is None


def test_a_message_of_another_type_is_refused(pair: tuple[Channel[Join | Frame | Caption], Channel[Grant]]) -> None:
    router, dealer = pair
    dealer.send(Grant(credit_bytes=1))
    with pytest.raises(WireError, match="cannot be read"):
        router.receive(timeout_ms=2000)


def test_rubbish_is_refused(pair: tuple[Channel[Join | Frame | Caption], Channel[Grant]]) -> None:
    router, dealer = pair
    dealer.socket.send_multipart([b"\xff\xff", b"", b""])
    with pytest.raises(WireError, match="3 frames"):
        router.receive(timeout_ms=2000)


def test_a_peer_that_is_gone_is_noticed(pair: tuple[Channel[Join | Frame | Caption], Channel[Grant]]) -> None:
    with pytest.raises(zmq.ZMQError, match="Host unreachable"):
        pair[0].send(Grant(credit_bytes=1), to=b"nobody")
