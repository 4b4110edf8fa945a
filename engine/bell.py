"""Wakes a thread that polls sockets."""

import zmq


class Bell:
    """A socket to poll, and a button to ring it with. Ring it from one other thread."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", name: str) -> None:
        self.listener = context.socket(zmq.PULL)
        self.listener.bind(f"inproc://{name}")
        self._button = context.socket(zmq.PUSH)
        self._button.connect(f"inproc://{name}")

    def ring(self) -> None:
        """Wake the thread."""
        # A full pipe means that it is ringing already.
        try:
            self._button.send(b"", zmq.NOBLOCK)
        except zmq.Again:
            return

    def clear(self) -> None:
        """Called by the thread that was woken, before it looks at what there is to do."""
        while self.listener.poll(0):
            self.listener.recv()

    def close(self) -> None:
        """Called when the thread has ended."""
        self._button.close(linger=0)
        self.listener.close(linger=0)
