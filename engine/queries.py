"""Search queries on their way through the engine: each becomes one item for every model that is asked. Pure."""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from engine.runner import Failure
from stages.base import Query
from transport.messages import EmbedQuery, QueryVectors


@dataclass(slots=True)
class PendingQuery:
    """A query until all models have answered."""

    request: int
    waiting: set[str]  # roles
    vectors: dict[str, tuple[float, ...]] = field(default_factory=dict)
    error: str | None = None  # the first

    def answer(self) -> QueryVectors:
        """All vectors, or the error."""
        vectors = self.vectors if self.error is None else {}
        return QueryVectors(request=self.request, vectors=vectors, error=self.error)


@dataclass(frozen=True, slots=True)
class QueryJob:
    """A query for one model."""

    role: str
    item: Query
    query: PendingQuery


class Queries:
    """Makes jobs of queries, and answers of what became of the jobs."""

    def __init__(self, roles: Collection[str]) -> None:
        """roles: of the models that are loaded and embed queries."""
        self.answers: deque[QueryVectors] = deque()
        self._roles = frozenset(roles)

    def ask(self, message: EmbedQuery) -> list[QueryJob]:
        """The jobs that a query needs; none when it is answered at once, for a model that it needs is not there."""
        lacking = [role for role in message.roles if role not in self._roles]
        query = PendingQuery(message.request, set(message.roles))
        if lacking:
            query.error = (
                f"no-query-model: the {lacking[0]} model embeds no queries here; it is off (models.{lacking[0]}), or "
                "searches are (daemon.search)"
            )
        if lacking or not query.waiting:
            self.answers.append(query.answer())
            return []
        return [QueryJob(role, Query(message.text), query) for role in sorted(query.waiting)]

    def finish(self, job: QueryJob, outcome: Any) -> None:
        """A model gave the vector, float32 [dimension] of unit length, or a `Failure`."""
        query = job.query
        query.waiting.discard(job.role)
        if not isinstance(outcome, Failure):
            query.vectors[job.role] = tuple(map(float, outcome))
        elif query.error is None:
            query.error = f"{outcome.code}: {outcome.message}"
        if not query.waiting:
            self.answers.append(query.answer())
