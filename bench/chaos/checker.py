"""The verdict over a run, from the history file and the database alone."""

import statistics
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Engine, text

from bench.chaos.history import read_history
from bench.followers import agree, compared
from moderation.ledger.audit.run import audit
from tests.support.given_out import Comparison


class Outcome(BaseModel):
    """What a run came to. lost and doubled are what the ledger promises to be 0."""

    accepted: int
    verdicts: int
    failed: dict[str, int]
    cancelled: int
    still_open: int
    lost: int
    doubled: int
    judged_again: int  # attempts that reached the judge and were thrown away with their worker
    charged_again: int  # assessments charged more than one attempt
    given_back: int
    set_aside: int
    breaches: list[str]  # that the audit found at the end; each kind with its first ids
    faults: dict[str, int]
    exits_of_their_own: dict[
        str, int
    ]  # by exit code: workers that ended though nothing of the plan ended them
    gone_s_max: float | None  # the slowest SIGTERM
    again_s_p50: float | None  # from a worker's death to its items running again
    again_s_p99: float | None
    again_s_max: float | None
    given_out: dict[str, Comparison]  # what feed, consumer and webhook were given, against the table

    @property
    def given_out_agrees(self) -> bool:
        return agree(self.given_out)


_FAULTS = ("kill", "term", "freeze", "flush", "redis_kill", "postgres_stop")


def check(history: Path, engine: Engine, given: dict[str, list[str]]) -> Outcome:
    """Hold the history against the database. given: the ids that each reader got, in its order."""
    events = list(read_history(history))
    accepted = {event["id"] for event in events if event["event"] == "accepted"}
    with engine.connect() as connection:
        rows = {
            str(row.id): row
            for row in connection.execute(text("SELECT id, state, error_code, charged FROM assessment"))
        }
        counted = connection.execute(
            text("SELECT assessment_id::text AS id, count(*) AS n FROM verdict GROUP BY 1")
        )
        verdicts = {row.id: row.n for row in counted}
        attempts = [
            row._mapping
            for row in connection.execute(
                text("SELECT assessment_id::text AS id, attempt, outcome, worker, claimed_at FROM attempt")
            )
        ]
    done = [row for row in attempts if row["outcome"] == "done"]
    again_s = _seconds_to_run_again(events, attempts)
    failed = [row.error_code for row in rows.values() if row.state == "failed"]
    terminal = {id_ for id_, row in rows.items() if row.state in {"done", "failed", "cancelled"}}
    without = {id_ for id_, row in rows.items() if row.state == "done" and verdicts.get(id_, 0) == 0}
    return Outcome(
        accepted=len(accepted),
        verdicts=sum(verdicts.values()),
        failed={code: failed.count(code) for code in sorted(set(failed))},
        cancelled=sum(row.state == "cancelled" for row in rows.values()),
        still_open=len(rows) - len(terminal),
        lost=len(accepted - terminal) + len(without),
        doubled=sum(count > 1 for count in verdicts.values()) + len(done) - len({row["id"] for row in done}),
        judged_again=sum(row["outcome"] == "crashed" for row in attempts),
        charged_again=sum(row.charged > 1 for row in rows.values()),
        given_back=sum(row["outcome"] == "given_back" for row in attempts),
        set_aside=failed.count("poison"),
        breaches=[f"{one.check}: {one.what}: {one.count} {one.ids}" for one in audit(engine).findings],
        faults={fault: sum(event["event"] == fault for event in events) for fault in _FAULTS},
        exits_of_their_own=_exits(events),
        gone_s_max=max((event["took_s"] for event in events if event["event"] == "gone"), default=None),
        again_s_p50=_quantile(again_s, 0.50),
        again_s_p99=_quantile(again_s, 0.99),
        again_s_max=max(again_s, default=None),
        given_out=compared(engine, given),
    )


def _exits(events: list[dict[str, Any]]) -> dict[str, int]:
    """-9: poison took it down; 75: it started while Postgres was away, and said so."""
    own = [str(e["code"]) for e in events if e["event"] == "ended" and e["fault"] is None]
    return {code: own.count(code) for code in sorted(set(own))}


def _seconds_to_run_again(events: list[dict[str, Any]], attempts: list[Any]) -> list[float]:
    """For each item in hand at a death: seconds from the death to the claim that followed."""
    died_at = {event["worker"]: event["at"] for event in events if event["event"] in {"kill", "ended"}}
    claimed_at = {(row["id"], row["attempt"]): row["claimed_at"].timestamp() for row in attempts}
    found = []
    for row in attempts:
        following = claimed_at.get((row["id"], row["attempt"] + 1))
        if row["outcome"] == "crashed" and row["worker"] in died_at and following is not None:
            found.append(following - died_at[row["worker"]])
    return sorted(found)


def _quantile(values: list[float], share: float) -> float | None:
    if len(values) < 2:
        return values[0] if values else None
    return round(statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1], 2)
