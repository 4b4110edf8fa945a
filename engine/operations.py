"""What the store has yet to be told beside points: paths that changed, videos to remove, records of what is indexed,
and whose speakers are to be found.

Each is written into the ledger with the change that causes it, and stays there until the consumer calls it durable. So
a process may die at any place in between; doing one twice does no harm.
"""

from typing import Any

from engine.fleet import Fleet
from engine.ledger import Ledger
from engine.ledger_tasks import Operation
from transport.messages import Label, Message, OperationDone, RecordVideo, Remove, Repath

IN_FLIGHT = 8  # sent to the consumer and not answered


class Operations:
    """The outbox of a ledger. Every method that reads or writes it may raise LedgerUnavailable; call it again then."""

    def __init__(self, ledger: Ledger) -> None:
        self._outbox = ledger.operations
        self._sent: dict[int, str] = {}  # operation → video
        self._sent_to: bytes | None = None
        self._may_be_more = True

    # --- what is to be told, written in the caller's transaction ------------------------------------------------------

    def repath(self, video_id: str, shown_path: str) -> None:
        """The content of a video has another path now."""
        self._add("repath", video_id, {"path": shown_path})

    def remove(self, video_id: str) -> None:
        """All points of a video are to go."""
        self._add("remove", video_id, {})

    def record(self, video_id: str, fingerprint: str, shown_path: str, report: str) -> None:
        """A video is indexed; report: its row, as JSON."""
        self._add("record", video_id, {"fingerprint": fingerprint, "path": shown_path, "report": report})

    def label(self, video_id: str, model: str) -> None:
        """Who speaks when in a video is to be found out; model: label of the voice model."""
        self._add("label", video_id, {"model": model})

    def _add(self, kind: Any, video_id: str, payload: dict[str, Any]) -> None:
        self._outbox.add(kind, video_id, payload)
        self._may_be_more = True

    # --- telling ------------------------------------------------------------------------------------------------------

    def has_work(self) -> bool:
        """Whether the store has not been told of everything."""
        return bool(self._sent) or (self._may_be_more and bool(self._outbox.pending(1)))

    @property
    def is_quiet(self) -> bool:
        """Whether the consumer has answered all that it was told, and nothing came since. Asks no ledger."""
        return not self._sent and not self._may_be_more

    def is_removing(self, video_id: str) -> bool:
        """Whether points of this video are still to be removed: new ones must not be written before that."""
        return self._outbox.is_removing(video_id)

    def send(self, fleet: Fleet) -> None:
        """Give the consumer what it can take, when the fleet is settled. A new one is given again what the last one did
        not answer.
        """
        consumer = fleet.consumer
        if consumer.identity != self._sent_to:
            self._sent.clear()
            self._sent_to, self._may_be_more = consumer.identity, True
        is_time = consumer.ready and fleet.is_settled
        if not (self._may_be_more and is_time) or len(self._sent) >= IN_FLIGHT:
            return
        pending = self._outbox.pending(IN_FLIGHT)
        for operation in pending:
            if operation.operation_id not in self._sent and fleet.send(consumer, message_of(operation)):
                self._sent[operation.operation_id] = operation.video_id
        unsent = any(operation.operation_id not in self._sent for operation in pending)
        self._may_be_more = unsent or len(pending) == IN_FLIGHT

    def done(self, message: OperationDone) -> None:
        """The consumer has done one, or the store refuses it for good."""
        if message.error is None:
            self._outbox.done(message.request)
        else:
            self._outbox.refused(message.request, message.error)
        self._sent.pop(message.request, None)
        self._may_be_more = True


def message_of(operation: Operation) -> Message:
    """An operation as the consumer takes it."""
    request, video_id, facts = operation.operation_id, operation.video_id, operation.payload
    match operation.kind:
        case "repath":
            return Repath(request=request, video_id=video_id, shown_path=facts["path"])
        case "remove":
            return Remove(request=request, video_id=video_id)
        case "label":
            return Label(request=request, video_id=video_id, model=facts["model"])
        case "record":
            return RecordVideo(
                request=request,
                video_id=video_id,
                fingerprint=facts["fingerprint"],
                shown_path=facts["path"],
                report=facts["report"],
            )
