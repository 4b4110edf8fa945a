"""What a reader of the GPU bench's figures has to know. Pure."""

from collections.abc import Iterator

from benches.gpu_alone import Alone
from benches.gpu_results import GIB, Results
from benches.gpu_work import Facts


def notes(results: Results) -> Iterator[str]:
    """What a reader has to know."""
    card = results.card
    yield f"device: {card.label}, {card.total_bytes / GIB:.1f} GiB, {card.build}, NVIDIA driver {card.driver or 'none'}"
    yield from card.notes
    if results.models:
        yield "models: " + ", ".join(f"{role} {source}" for role, source in results.models.items())
    if results.alone is not None:
        yield from _notes_alone(results.alone)
    if results.facts is not None:
        yield from _notes_work(results.facts)
    yield from dict.fromkeys(f"{name}: {note}" for name, _, run in results.runs() for note in run.notes)
    yield from (f"failed: {failure}" for failure in results.failures)
    yield from (f"left out, no time was left: {name}" for name in results.skipped)
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in results.seconds.items())
    yield f"time of the parts: {parts}"


def _notes_alone(alone: Alone) -> Iterator[str]:
    if any("untrained" in stage.model for stage in alone.stages):
        yield "untrained models: what they find means nothing; what they cost is that of their sizes"
    if alone.tokens:
        low, high = min(alone.tokens), max(alone.tokens)
        rate = sum(alone.tokens) / alone.token_seconds
        yield (
            f"text: {low} to {high} tokens for each window of speech, {rate:.2f} a second of it; the built Whispers "
            "say 2.5 by their weights, on every device and in every run, where people's speech gives about 3 to 4"
        )
    if alone.sampler_ratio is not None:
        yield f"speech with its memory watched, as the engine does: {alone.sampler_ratio:.3f} times its time without"
    yield from (f"not measured: {failure}" for failure in alone.failures)
    yield (
        "bytes are those that operators read and write if nothing stays in a cache: a share of the memory's bandwidth "
        "above 1 says that caches helped"
    )


def _notes_work(facts: Facts) -> Iterator[str]:
    share = facts.speech_seconds / facts.media_seconds
    yield (
        f"the medium: {100 * share:.0f} % of it is speech, in {facts.windows} windows; decoding costs what this medium "
        "costs: --media takes one of yours"
    )
    yield "the slowest stage alone: all models one after the other at their best batch, or the decoders, each on a core"
