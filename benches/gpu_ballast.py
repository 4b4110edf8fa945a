"""Holds the rest of a card, so that no more than a budget is free on it: `python -m benches.gpu_ballast cuda:0 4`.

torch's own limit does not bind CTranslate2, nor CUDA's context. A process that holds the memory makes the card as small
for everybody as a smaller card is.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from engine.budget import GIB

SLACK_BYTES = 64 * 1024**2  # left free beyond the budget, for the driver rounds


def hold(device: str, budget_gb: float) -> None:
    """Child process: take all of the card but the budget, say so, and hold it until standard input closes."""
    import torch

    free_bytes, _ = torch.cuda.mem_get_info(device)  # with the context of this process, which stays beside it
    taken = torch.empty(max(0, free_bytes - round(budget_gb * GIB) - SLACK_BYTES), dtype=torch.uint8, device=device)
    torch.cuda.synchronize(device)
    print(f"holds {taken.numel()} bytes, leaves {torch.cuda.mem_get_info(device)[0]}", flush=True)
    sys.stdin.read()


@contextmanager
def ballast(device: str, budget_gb: float | None) -> Iterator[None]:
    """While it lasts, no more than the budget is free on the card. Without a card, or a budget, it does nothing.

    Raises RuntimeError when the memory could not be taken.
    """
    if budget_gb is None or not device.startswith("cuda"):
        yield
        return
    command = [sys.executable, "-m", "benches.gpu_ballast", device, str(budget_gb)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"all but {budget_gb:g} GB of {device} could not be taken: is it in use?")
        try:
            yield
        finally:
            process.stdin.close()


if __name__ == "__main__":
    hold(sys.argv[1], float(sys.argv[2]))
