"""A ledger that has seen all kinds of work, ways to breach it, and a turn at its audit."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import Engine, text

from moderation.errors import HostUnavailable, NotFound, RuntimeCrashed
from moderation.ledger import retention
from moderation.ledger.audit.finding import AuditCheck, AuditFinding
from moderation.ledger.audit.run import AuditReport
from moderation.ledger.audit.turn import take_turn
from moderation.ledger.engine import transaction
from moderation.ledger.outcomes import fail, give_back, give_back_crashed, try_later
from moderation.ledger.reassess import ReassessFilter, reassess, revision_change
from moderation.ledger.registry import add
from moderation.ledger.retry import cancel_queued, retry_failed
from moderation.ledger.selection import Selection
from moderation.ledger.sweep import expire
from moderation.policy import load_policy
from moderation.settings import AuditSettings
from tests.support.ledger import claimed, record, submitted, verdict

_POLICY_FILE = "policy: city-news\ntitle: City news desk\n"


def kinds(found: AuditReport | list[AuditFinding]) -> dict[tuple[AuditCheck, str], tuple[str, ...]]:
    return {
        (one.check, one.what): one.ids
        for one in (found.findings if isinstance(found, AuditReport) else found)
    }


def plant(engine: Engine, statements: str, id_: UUID | None = None) -> None:
    """Write past all constraints; past triggers as well where a statement begins with !."""
    with transaction(engine) as connection:
        for constraint in ("lease_while_running", "rings_while_queued", "due_or_rung"):
            connection.execute(
                text(f"ALTER TABLE assessment DROP CONSTRAINT IF EXISTS assessment_{constraint}")
            )
        for statement in statements.split(";"):
            past = statement.strip().startswith("!")
            connection.execute(
                text(f"SET LOCAL session_replication_role = {'replica' if past else 'origin'}")
            )
            connection.execute(text(statement.strip().lstrip("!")), {"id": id_})


def turn(engine: Engine, **settings: float) -> list[AuditFinding] | None:
    return take_turn(engine, AuditSettings(**({"every_s": 1e-6, "turn_s": 30} | settings)))  # type: ignore[arg-type]


def work(engine: Engine) -> None:
    """All that happens to assessments: judged, failed, tried again, crashed, cancelled, retried, judged anew, cleared."""
    record(
        engine, claimed(engine, submitted(engine, key="done", batch="b", tenant="t")), verdict(), worker="w1"
    )
    fail(
        engine,
        claimed(engine, submitted(engine, key="failed", batch="b")),
        NotFound("404"),
        worker="w1",
        timings_ms={},
    )
    claimed(engine, submitted(engine, key="running"))
    submitted(engine, key="queued")
    submitted(engine, key="rung", rung=True)
    item = submitted(engine, key="cancelled", batch="b")
    give_back(engine, claimed(engine, item), worker="w1")
    cancel_queued(engine, Selection(ids=(item,)))
    _tried_again(engine)
    _failed_and_retried(engine)
    _lost_with_their_workers(engine)
    _reused(engine)
    _judged_anew(engine)
    list(retention.clear_raw(engine, datetime.now(UTC) + timedelta(days=1), rows=10))
    list(retention.clear_uris(engine, datetime.now(UTC) + timedelta(days=1), rows=10))


def _tried_again(engine: Engine) -> None:
    item = submitted(engine, key="retried")
    try_later(engine, claimed(engine, item), HostUnavailable("503"), worker="w1", delay_s=0, timings_ms={})
    give_back_crashed(engine, claimed(engine, item), RuntimeCrashed("gone"), worker="w1")
    record(engine, claimed(engine, item), verdict(), worker="w1")


def _failed_and_retried(engine: Engine) -> None:
    """Failed, retried and failed; the same and cancelled; the same and done."""
    for key in ("failed-twice", "failed-cancelled", "failed-done"):
        item = submitted(engine, key=key)
        try_later(
            engine, claimed(engine, item), HostUnavailable("503"), worker="w1", delay_s=0, timings_ms={}
        )
        fail(engine, claimed(engine, item), NotFound("404"), worker="w1", timings_ms={})
        retry_failed(engine, Selection(ids=(item,)))
        if key == "failed-twice":
            fail(engine, claimed(engine, item), NotFound("404"), worker="w1", timings_ms={})
        elif key == "failed-cancelled":
            cancel_queued(engine, Selection(ids=(item,)))
        else:
            record(engine, claimed(engine, item), verdict(), worker="w1")


def _lost_with_their_workers(engine: Engine) -> None:
    """One that runs again, and one that took too many workers down, also after a retry."""
    claimed(engine, submitted(engine, key="lost"), lease_s=-1)
    expire(engine, worker="sweeper", max_crashes=3)
    item = submitted(engine, key="poison")
    claimed(engine, item, lease_s=-1)
    expire(engine, worker="sweeper", max_crashes=1)
    retry_failed(engine, Selection(ids=(item,)))
    claimed(engine, item, lease_s=-1)
    expire(engine, worker="sweeper", max_crashes=5)
    claimed(engine, item, lease_s=-1)
    expire(engine, worker="sweeper", max_crashes=1)


def _reused(engine: Engine) -> None:
    first = claimed(engine, submitted(engine, key="first"))
    record(engine, first, verdict(), worker="w1")
    second = verdict().model_copy(update={"reused_from": first.id})
    record(engine, claimed(engine, submitted(engine, key="reused")), second, worker="w1")


def _judged_anew(engine: Engine) -> None:
    for number, more in enumerate(("", "categories: {O5: sensitive}\n")):
        add(engine, load_policy(_POLICY_FILE + more, source="p.yaml"), by="anna", reason=f"r{number}")
    record(
        engine, claimed(engine, submitted(engine, key="again", policy="city-news@1")), verdict(), worker="w1"
    )
    change = revision_change(engine, "city-news", from_revision=1, to_revision=2)
    assert sum(page.queued for page in reassess(engine, change, ReassessFilter(), batch="anew")) == 1
    with engine.connect() as connection:
        (anew,) = connection.execute(text("SELECT id FROM assessment WHERE batch = 'anew'")).scalars()
    record(engine, claimed(engine, anew), verdict(), worker="w1")
