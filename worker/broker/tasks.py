"""The Celery tasks. Each decodes its message and hands it to the processor or to the webhook senders."""

from collections.abc import Sequence
from uuid import UUID

from celery import Celery, Task
from celery.exceptions import Retry

from moderation.doorbell import MORE, TASK
from moderation.errors import InvalidSubmission
from moderation.webhook import TASK as DELIVER
from worker.broker.bootsteps import ServiceHolder
from worker.events import task_progress
from worker.events.outcome import NotJudged, Outcome, in_words, judged, not_judged


def register(app: Celery, holder: ServiceHolder) -> None:
    """Give the app its tasks, which work at the service of this process."""

    # throws: no traceback in the log for what the ledger has as a named failure.
    @app.task(name=TASK, bind=True, throws=(NotJudged,), Request="worker.broker.request:RedactedRequest")
    def assess(
        task: Task[..., dict[str, str]],
        id: str,  # noqa: A002 - the message's own name for it
        uri: str = "",
        policy: str = "",
    ) -> dict[str, str]:
        """Assess the row of this id. A header may name more rows, which came in one message with it.

        uri, policy: for who reads the message. A message that brings an image of its own is not a task: worker.plain
        makes a row of it.
        Returns what Flower shows; raises NotJudged or Retry for what Flower shows as failed or waiting.
        """
        assert holder.service is not None, "tasks run while the worker does"
        row = _row(id)
        more = [_row(other) for other in task.request.get(MORE) or ()]
        with task_progress.task(str(task.request.id)):
            return _shown(row, holder.service.work(row, *more))

    @app.task(name=DELIVER)
    def deliver(webhook: str) -> dict[str, str]:
        """Deliver to the endpoint of this id, in a thread of the senders."""
        assert holder.service is not None, "tasks run while the worker does"
        return {"webhook": webhook, "outcome": holder.service.webhook_dispatcher.accept(_row(webhook))}


def _shown(row: UUID, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """As a Celery task ends: siblings with one that failed have failed, though the others have their verdicts."""
    if any(outcome.is_failed for outcome in outcomes):
        raise not_judged(row, outcomes)
    if any(outcome.is_retried for outcome in outcomes):
        raise Retry(in_words(outcomes), exc=not_judged(row, outcomes))
    return judged(row, outcomes)


def _row(id_: str) -> UUID:
    try:
        return UUID(id_)
    except ValueError:
        raise InvalidSubmission("the message's id is not a UUID") from None
