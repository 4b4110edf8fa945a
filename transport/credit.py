"""Byte credits: the receiver says how many bytes it will take, and the sender never sends more.

A ZeroMQ high-water mark counts messages of any size for each pipe and so bounds nothing; credits bound bytes. The
receiver grants a sender its share at the start and returns what each message cost once that message has left its
memory. At any moment: bytes on the wire + bytes held by the receiver + credit left = the share.
"""


class CreditAccount:
    """The sender's side: what it may still send. Pure."""

    def __init__(self) -> None:
        self.available_bytes = 0
        self.limit_bytes = 0  # the largest credit ever held: the share

    def grant(self, credit_bytes: int) -> None:
        """Take credit that the receiver gave or returned."""
        self.available_bytes += credit_bytes
        self.limit_bytes = max(self.limit_bytes, self.available_bytes)

    def can_send(self, cost_bytes: int) -> bool:
        """Whether a message of this cost may go now.

        A message larger than the whole share would wait for ever; it may go when nothing else is out.
        """
        if self.limit_bytes == 0:
            return False
        return cost_bytes <= self.available_bytes or self.available_bytes == self.limit_bytes

    def spend(self, cost_bytes: int) -> None:
        """Record a message as sent. The balance may fall below zero only by the rule in `can_send`."""
        self.available_bytes -= cost_bytes


class CreditBook:
    """The receiver's side: who holds how much, and what is to be returned. Pure."""

    def __init__(self, share_bytes: int) -> None:
        if share_bytes < 1:
            raise ValueError(f"a share must be positive, not {share_bytes}")
        self.share_bytes = share_bytes
        self._held: dict[bytes, int] = {}
        self._owed: dict[bytes, int] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes received and not yet released, of all senders."""
        return sum(self._held.values())

    def join(self, sender: bytes) -> None:
        """A sender asks for its share; asking twice gives it once."""
        if sender not in self._held:
            self._held[sender] = 0
            self._owed[sender] = self.share_bytes

    def receive(self, sender: bytes, cost_bytes: int) -> None:
        """Count a message that arrived."""
        self._held[sender] = self._held.get(sender, 0) + cost_bytes

    def release(self, sender: bytes, cost_bytes: int) -> None:
        """A message has left memory: its cost is owed back to its sender, unless that one has left."""
        if sender not in self._held:
            return
        self._held[sender] -= cost_bytes
        self._owed[sender] = self._owed.get(sender, 0) + cost_bytes

    def leave(self, sender: bytes) -> None:
        """A sender is gone for good: nothing is owed to it."""
        self._held.pop(sender, None)
        self._owed.pop(sender, None)

    def take_owed(self) -> dict[bytes, int]:
        """Credit to send now, by sender; clears the list."""
        owed = {sender: amount for sender, amount in self._owed.items() if amount}
        self._owed.clear()
        return owed
