"""Registers worker processes: each as it reports itself, idle ones too, and whether it is still heard."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, text

from moderation.ledger.engine import autocommit
from moderation.worker_status import WorkerStatus

# Names repeat where somebody gave two processes the same, or a new one took over: the last one that spoke counts.
_SIGN_ON = text("""
    INSERT INTO worker AS w (
        name, host, pid, gpu, judge, version, runtime, runtime_version, runtime_state, model, ready, waits,
        in_hand, in_hand_limit, in_flight, in_flight_limit, started_at, seen_at, heard_until
    ) VALUES (
        :name, :host, :pid, :gpu, :judge, :version, :runtime, :runtime_version, :runtime_state, :model, :ready,
        CAST(:waits AS jsonb), :in_hand, :in_hand_limit, :in_flight, :in_flight_limit, :started_at, now(),
        now() + make_interval(secs => :silent_after_s)
    )
    ON CONFLICT (name) DO UPDATE SET
        host = excluded.host, pid = excluded.pid, gpu = excluded.gpu, judge = excluded.judge,
        version = excluded.version, runtime = excluded.runtime, runtime_version = excluded.runtime_version,
        runtime_state = excluded.runtime_state, model = excluded.model, ready = excluded.ready,
        waits = excluded.waits, in_hand = excluded.in_hand, in_hand_limit = excluded.in_hand_limit,
        in_flight = excluded.in_flight, in_flight_limit = excluded.in_flight_limit,
        started_at = excluded.started_at, seen_at = excluded.seen_at, heard_until = excluded.heard_until
""")

# Columns that are named as the fields of WorkerStatus are.
_SAME_NAMES = (
    "name", "host", "pid", "gpu", "judge", "version", "runtime", "runtime_version", "runtime_state", "model", "ready",
    "in_hand", "in_flight", "started_at",
)  # fmt: skip

# By its start as well: one that took over the name stays.
_SIGN_OFF = text("DELETE FROM worker WHERE name = :name AND started_at = :started_at")

# One expression for what is shown and what is counted. Reads the table as `w`.
STATE = "CASE WHEN w.heard_until < now() THEN 'silent' WHEN w.ready THEN 'ready' ELSE 'waiting' END"
STATES = ("ready", "waiting", "silent")

# For the sweeper, in a statement that it makes anyhow: a few rows are read for it.
FORGET = "DELETE FROM worker WHERE seen_at < now() - interval '1 day'"

_COUNTS = text(f"SELECT {STATE} AS state, count(*) FROM worker w GROUP BY 1")


def register_worker(engine: Engine, status: WorkerStatus, *, silent_after_s: float) -> None:
    """Say that this worker is there, and how it is. silent_after_s: not heard for so long, it counts as silent."""
    values = {name: getattr(status, name) for name in _SAME_NAMES} | {
        "waits": json.dumps([asdict(wait) for wait in status.waits], default=datetime.isoformat),
        "in_hand_limit": status.in_hand_most,
        "in_flight_limit": status.in_flight_most,
        "silent_after_s": silent_after_s,
    }
    with autocommit(engine) as connection:
        connection.execute(_SIGN_ON, values)


def unregister_worker(engine: Engine, name: str, started_at: datetime) -> None:
    """This worker has ended as it was told to; nothing where another has its name by now."""
    with autocommit(engine) as connection:
        connection.execute(_SIGN_OFF, {"name": name, "started_at": started_at})


def counts(engine: Engine) -> dict[str, Any]:
    """How many workers are ready, waiting for something, or silent: not heard of in time, for up to a day."""
    with autocommit(engine) as connection:
        numbers = {row.state: row.count for row in connection.execute(_COUNTS)}
    return {state: numbers.get(state, 0) for state in STATES}
