"""What retry and cancel were asked to change by id and did not, and why."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from uuid import UUID

import typer
from sqlalchemy import Engine

from moderation.assessment import State
from moderation.cli.output import print_json, talk
from moderation.exit_codes import SOME_FAILED
from moderation.ledger.selection import Selection
from moderation.ledger.status import AssessmentStatus, states

RETRY: Mapping[State, str] = {
    State.QUEUED: "is queued already",
    State.RUNNING: "is running",
    State.DONE: "is done: reassess, or enqueue --again, judges it again",
    State.CANCELLED: "is cancelled: enqueue --again, or another key, judges it",
}
CANCEL: Mapping[State, str] = {
    State.RUNNING: "is running: a worker has claimed it",
    State.DONE: "is done",
    State.FAILED: "has failed already",
    State.CANCELLED: "is cancelled already",
}


@dataclass(frozen=True, slots=True)
class Unchanged:
    """One that was named and left as it was."""

    id: UUID
    why: str


def unchanged(
    engine: Engine, selection: Selection, changed: Collection[UUID], reasons: Mapping[State, str]
) -> list[Unchanged]:
    """Those that the selection names by id and that are not among the changed. reasons: why, by their state."""
    others = [id_ for id_ in selection.ids if id_ not in changed]
    statuses = states(engine, others) if others else {}
    return [Unchanged(id_, _why(statuses.get(id_), reasons)) for id_ in others]


def report(what: str, count: int, others: list[Unchanged], *, named: bool, as_json: bool) -> None:
    """What was done, and what was not. named: by ids, of which each is accounted for. Exits with 3 where some are left."""
    if as_json:
        output: dict[str, object] = {what.replace(" ", "_"): count}
        print_json(output | {"unchanged": [asdict(one) for one in others]} if named else output)
    else:
        talk(f"{what}: {count}")
        for one in others:
            talk(f"{one.id} {one.why}")
    if others:
        raise typer.Exit(SOME_FAILED)


def _why(status: AssessmentStatus | None, reasons: Mapping[State, str]) -> str:
    if status is None:
        return "is not in this ledger"
    if status.state in reasons:
        return reasons[status.state]
    if status.cleared:
        return "cannot be fetched any more: retention cleared its URI"
    return "is not what the other filters mean"
