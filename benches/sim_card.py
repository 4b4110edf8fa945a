"""A simulated card: what models take of it, as stated assumptions, each derived from figures that can be looked up.

The class of card is that of an NVIDIA T4: 65 TFLOP/s peak in half precision, 8.1 in single, 320 GB/s (its data sheet).
Kernels of these models reach about a third of the peak in half precision, half of it in single. All cards here have the
speed of this one; only their memory differs, so that the memory's part can be seen.

Whisper large-v3: 32 + 32 layers, width 1280, 1.55 billion parameters (Radford et al., 2022, table 1; model card).
CLIP ViT-L/14: 24 layers, width 1024, 257 tokens (Radford et al., 2021); its picture tower, all that the engine loads of
it, has 304 million of 428 million parameters.
XLM-R large, as in BGE-M3: 24 layers, width 1024, 560 million parameters, 46 % embeddings (Conneau et al., 2020).
ECAPA-TDNN, 1024 channels: 20.8 million parameters, 2.7 GMAC for 2 s of sound (Desplanques et al., 2020).
A transformer layer of width d has 12 d² weights (4 d² attention, 8 d² MLP), 4 d² more with cross attention; each weight
takes two operations for a token.
"""

from benches.report import Table
from engine.simulated_device import Cost

GIB = 1024**3
MB = 10**6

HALF_FLOPS = 20e12  # sustained, half precision
SINGLE_FLOPS = 4e12  # sustained, single precision
MEMORY_BYTES_PER_SECOND = 320e9
HOST_BYTES_PER_SECOND = 6e9  # PCIe 3.0 x16 from pageable memory; pinned reaches about twice that
DISK_BYTES_PER_SECOND = 1e9  # NVMe, with what reading a file of weights costs besides
LAUNCH_SECONDS = 8e-6  # for one kernel
MOVE_SECONDS = 0.1  # for taking off or bringing back any model, besides its bytes
CONTEXT_BYTES = 400 * MB  # CUDA's context with the libraries' workspaces
FRAGMENTATION = 0.1  # share of torch's cache that no request fits


def cost(weights_bytes: float, **more: float | bool) -> Cost:
    """A model's costs; coming back includes having left (`SimulatedModel.park` takes no time)."""
    return Cost(
        weights_bytes=round(weights_bytes),
        host_seconds=2 * (MOVE_SECONDS + weights_bytes / HOST_BYTES_PER_SECOND),
        disk_seconds=2 * MOVE_SECONDS + weights_bytes / DISK_BYTES_PER_SECOND,
        **more,  # type: ignore[arg-type]
    )


def _speech() -> Cost:
    """Whisper large-v3 in int8_float16, windows of 30 s: 1500 positions in the encoder, about 100 tokens out."""
    layers, width, positions, tokens = 32, 1280, 1500, 100
    encoder, decoder = 12 * width**2 * layers, 16 * width**2 * layers
    attention = 4 * positions**2 * width * layers
    cross_bytes = layers * 2 * positions * width * 2  # keys and values of the encoder's output, half precision
    self_bytes = layers * 2 * 448 * width * 2  # … of the text so far, at its longest
    return cost(
        1.55e9,
        batch_bytes=150 * MB,
        item_bytes=cross_bytes + self_bytes,
        batch_seconds=tokens * decoder / MEMORY_BYTES_PER_SECOND,  # every token reads the decoder's weights once
        item_seconds=(2 * encoder * positions + attention + 2 * decoder * tokens) / HALF_FLOPS
        + tokens * cross_bytes / MEMORY_BYTES_PER_SECOND,
        outside_torch=True,
    )


def _encoder(parameters: float, tokens: int, item_bytes: int) -> Cost:
    """A transformer of 24 layers and width 1024, in half precision; 12 kernels a layer."""
    layers, width = 24, 1024
    weights = 12 * width**2 * layers
    return cost(
        parameters * 2,
        batch_bytes=50 * MB,
        item_bytes=item_bytes,
        batch_seconds=weights * 2 / MEMORY_BYTES_PER_SECOND + 12 * layers * LAUNCH_SECONDS,
        item_seconds=(2 * weights * tokens + 4 * tokens**2 * width * layers) / HALF_FLOPS,
    )


COSTS: dict[str, Cost] = {
    "image": _encoder(304e6, 257, 8 * MB),  # activations: scores 16 x 257² x 2 B, MLP 257 x 4096 x 2 B, twice
    "speech": _speech(),
    "text": _encoder(560e6, 512, 24 * MB),  # at 512 tokens, the longest; shorter texts take their share
    "voice": cost(
        20.8e6 * 4,
        batch_bytes=20 * MB,
        item_bytes=51 * MB,  # 3 s; measured on the CPU: benches/profiles.py
        batch_seconds=600 * LAUNCH_SECONDS,
        item_seconds=2 * 2.7e9 * 1.5 / SINGLE_FLOPS,
    ),
}
TOGETHER = "Whisper large-v3 int8, CLIP ViT-L/14, BGE-M3, ECAPA-TDNN"


def assumptions() -> list[str]:
    """Of the card, as lines for people."""
    return [
        f"Assumed, not measured: a card of the T4's class ({HALF_FLOPS / 1e12:.0f} TFLOP/s half and "
        f"{SINGLE_FLOPS / 1e12:.0f} single precision sustained, {MEMORY_BYTES_PER_SECOND / 1e9:.0f} GB/s, "
        f"{HOST_BYTES_PER_SECOND / 1e9:.0f} GB/s to the host, {DISK_BYTES_PER_SECOND / 1e9:.0f} GB/s from disk), "
        f"{CONTEXT_BYTES / MB:.0f} MB context, {FRAGMENTATION:.0%} of caches unusable. {TOGETHER}."
    ]


def assumed() -> Table:
    """Of the models: a row for each."""
    columns = (
        "model", "weights MB", "MB/batch", "MB/item", "ms/batch", "ms/item", "s back from host", "s from disk",
    )  # fmt: skip
    rows = tuple(
        (
            role,
            each.weights_bytes / MB,
            each.batch_bytes / MB,
            each.item_bytes / MB,
            each.batch_seconds * 1e3,
            each.item_seconds * 1e3,
            each.host_seconds,
            each.disk_seconds,
        )
        for role, each in COSTS.items()
    )
    return Table("Assumed of the models, not measured", columns, rows)
