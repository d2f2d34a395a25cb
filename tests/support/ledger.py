"""Short ways to fill a ledger and to look into it, for tests."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from moderation.assessment import Claim, Priority, Submission
from moderation.ledger import migrate
from moderation.ledger.claim import claim
from moderation.ledger.outcomes import WriteResult
from moderation.ledger.policies import pin
from moderation.ledger.record import record_all
from moderation.ledger.submit import new_id, submit
from moderation.verdict import Ask, ImageFacts, Judgement, Rating, Rung, Verdict
from moderation.worker_status import WorkerStatus

POLICY = "llavaguard-default"


def submitted(
    engine: Engine, uri: str = "https://images.test/1.jpg", *, rung: bool = False, **fields: Any
) -> UUID:
    """The id of a new assessment."""
    submission = Submission(uri=uri, policy=fields.pop("policy", POLICY), **fields)
    pinned = pin(engine, [submission.policy])
    return submit(engine, [submission], pinned, [new_id()], rung=rung)[0].id


def claimed(engine: Engine, id_: UUID | None = None, *, worker: str = "w1", lease_s: float = 45) -> Claim:
    """A claim of this row, or of a new one."""
    (taken,) = claim(engine, [id_ or submitted(engine)], worker=worker, lease_s=lease_s)
    return taken


def record(engine: Engine, claim: Claim, verdict: Verdict, *, worker: str) -> WriteResult:
    """What became of one verdict, written by itself."""
    return record_all(engine, [(claim, verdict)], worker=worker)[0]


def row(engine: Engine, id_: UUID) -> dict[str, Any]:
    """The assessment's row."""
    with engine.connect() as connection:
        found = connection.execute(text("SELECT * FROM assessment WHERE id = :id"), {"id": id_})
        return dict(found.mappings().one())


def attempts(engine: Engine, id_: UUID) -> list[dict[str, Any]]:
    """Its attempts, first to last."""
    query = text("SELECT * FROM attempt WHERE assessment_id = :id ORDER BY attempt")
    with engine.connect() as connection:
        return [dict(found) for found in connection.execute(query, {"id": id_}).mappings()]


def take_back(engine: Engine, revision: str) -> None:
    """The tables as they were before this migration; nothing where it is not there."""
    from alembic import command
    from alembic.script import ScriptDirectory

    config = migrate._config()
    before = ScriptDirectory.from_config(config).get_revision(revision).down_revision
    with engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, str(before))


def verdict(*, rating: Rating = Rating.SAFE, asks: tuple[Ask, ...] = (), **judgement: Any) -> Verdict:
    """A plausible verdict."""
    fields: dict[str, Any] = {
        "rating": rating,
        "category": "NA: None applying",
        "rationale": "A cup of coffee.",
        "rung": Rung.STRICT,
        "judge": "sglang",
        "model": "LlavaGuard-v1.2-0.5B-OV",
        "runtime": "sglang",
        "runtime_version": "0.5.16",
        "asks": asks,
    }
    return Verdict(
        judgement=Judgement(**(fields | judgement)),
        image=ImageFacts(
            bytes_sha256="b" * 64,
            pixels_sha256="c" * 64,
            media_type="image/jpeg",
            width=640,
            height=480,
            byte_count=12_345,
        ),
        timings_ms={"fetch": 1.0, "decode": 2.0, "judge": 3.0},
    )


def worker_status(name: str, **fields: Any) -> WorkerStatus:
    """A plausible worker; ready unless it waits for something."""
    told: dict[str, Any] = {
        "host": "host-7",
        "pid": 4321,
        "gpu": "gpu0-h100",
        "judge": "sglang",
        "version": "0.1.0",
        "runtime": "sglang",
        "runtime_version": "0.5.16",
        "runtime_state": "ready",
        "model": "LlavaGuard-v1.2-0.5B-OV",
        "live": True,
        "ready": not fields.get("waiting"),
        "in_hand": 3,
        "in_hand_most": 320,
        "in_flight": 2,
        "in_flight_most": 256,
        "in_flight_phase": "up",
        "started_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return WorkerStatus(name=name, **(told | fields))


HIGH, NORMAL, LOW = Priority.HIGH, Priority.NORMAL, Priority.LOW
