"""What the parts of the GPU bench found, and the rates that it is compared with. Pure."""

from typing import NamedTuple

import msgspec

from benches.gpu_alone import Alone
from benches.gpu_card import Card
from benches.gpu_fed import Run
from benches.gpu_parts import budget_name
from benches.gpu_work import Facts
from stages.base import Role

GIB = 1024**3
WORDS = {"keyframes": "key frames", "fps": "1 frame/s"}


class Series(msgspec.Struct, frozen=True):
    """Runs of the engine on one budget."""

    kind: str  # fed | ingest
    budget_gb: float | None
    runs: tuple[Run, ...]


class NamedRun(NamedTuple):
    """A run, and what it is called."""

    name: str
    series: Series
    run: Run

    @property
    def slug(self) -> str:
        """Of a file's name."""
        size = "all" if self.series.budget_gb is None else f"{self.series.budget_gb:g}gb"
        return f"{self.series.kind}-{size}-{self.run.sampling}"


class Results(msgspec.Struct):
    """Everything that was found so far."""

    card: Card
    models: dict[Role, str] = {}  # by role: what was built, or named
    facts: Facts | None = None
    alone: Alone | None = None
    series: list[Series] = []
    failures: list[str] = []  # parts that did not come to their end, and why
    skipped: list[str] = []  # parts for which no time was left
    seconds: dict[str, float] = {}  # that each part took

    def runs(self) -> list[NamedRun]:
        """All of them."""
        return [NamedRun(run_name(series, run), series, run) for series in self.series for run in series.runs]

    def run(self, kind: str, budget_gb: float | None, sampling: str) -> Run | None:
        """That of this kind, if there was one."""
        for _, series, run in self.runs():
            if (series.kind, series.budget_gb, run.sampling) == (kind, budget_gb, sampling):
                return run
        return None


def run_name(series: Series, run: Run) -> str:
    kind = "fed from memory" if series.kind == "fed" else f"ingest ({run.decoders} decoder{'s' * (run.decoders > 1)})"
    return f"{budget_name(series.budget_gb)}, {WORDS[run.sampling]}, {kind}"


# --- rates -----------------------------------------------------------------------------------------------------------


def hour_seconds(alone: Alone, facts: Facts, sampling: str) -> dict[str, float]:
    """Device seconds for an hour of media, by role."""
    scale = 3600 / facts.media_seconds
    return {
        stage.name: stage.medium_seconds[sampling] * scale for stage in alone.stages if sampling in stage.medium_seconds
    }


def alone_rate(alone: Alone | None, facts: Facts | None, sampling: str) -> float | None:
    """Hours of media in an hour, when all models run one after the other at their best batch; None when unknown."""
    if alone is None or facts is None:
        return None
    costs = hour_seconds(alone, facts, sampling)
    return 3600 / sum(costs.values()) if costs else None


def slowest_alone(results: Results, series: Series, run: Run) -> float | None:
    """Hours/hour of the models alone, or of the decoders alone where they are slower; each decoder on a core."""
    rate = alone_rate(results.alone, results.facts, run.sampling)
    if rate is None or results.facts is None or series.kind == "fed":
        return rate
    return min(rate, run.decoders * 3600 / results.facts.cpu_seconds_an_hour(run.sampling))
