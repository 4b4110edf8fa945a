"""What is killed when: a sequence that its seed decides."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

KINDS = ("supervisor", "decoder", "engine", "consumer")
SOON = 1 / 3  # share of kills that follow the one before so closely that its successors are still starting
SOON_SECONDS = 0.5


@dataclass(frozen=True)
class Kill:
    """One SIGKILL."""

    number: int  # from 1 on
    kind: str
    soon: bool  # after the kill before, whoever is starting; else the delay counts from when all are at work again
    delay_seconds: float
    pick: int  # which one, where there are several of the kind; to be taken modulo their count

    def __str__(self) -> str:
        when = "later" if self.soon else "into the work"
        return f"kill {self.number}: {self.kind} {self.pick}, {self.delay_seconds:.2f} s {when}"


def schedule(seed: int, longest_seconds: float, kinds: Sequence[str] = KINDS) -> Iterator[Kill]:
    """Kills without end. Every kind comes once in each round, in an order and at moments that chance decides."""
    chance = random.Random(seed)
    number = 0
    while True:
        for kind in chance.sample(kinds, len(kinds)):
            number += 1
            soon = chance.random() < SOON
            delay = chance.uniform(0.0, SOON_SECONDS if soon else longest_seconds)
            yield Kill(number, kind, soon, delay, chance.randrange(1 << 16))
