"""Workers in the ledger: as they say they are, silent when they say no more, gone at their end or a day later."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from moderation.ledger import workers as ledger_workers
from moderation.ledger.activity import workers
from moderation.ledger.sweep import expire
from moderation.ledger.workers import register_worker, unregister_worker
from moderation.worker_status import Wait
from tests.support.ledger import claimed, worker_status

_SINCE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def shown(engine: Engine) -> dict[str, dict[str, Any]]:
    return {row["worker"]: row for row in workers(engine)}


def age(engine: Engine, name: str, by: str) -> None:
    """As if it had last spoken so long ago."""
    with engine.connect() as connection:
        connection.execute(
            text("""
                UPDATE worker SET seen_at = seen_at - CAST(:by AS interval),
                    heard_until = heard_until - CAST(:by AS interval) WHERE name = :name
            """),
            {"by": by, "name": name},
        )


def test_an_idle_worker_is_shown_as_it_says_it_is(ledger: Engine) -> None:
    wait = Wait("runtime", "SGLang starts", _SINCE)
    register_worker(ledger, worker_status("idle", gpu=None), silent_after_s=30)
    register_worker(
        ledger,
        worker_status("starts", waiting=(wait,), runtime_version=None, runtime_state="starting"),
        silent_after_s=30,
    )
    assert list(shown(ledger)) == ["starts", "idle"], "first what is unwell"
    idle, starts = shown(ledger)["idle"], shown(ledger)["starts"]
    assert (idle["state"], idle["runtime"], idle["runtime_state"], idle["gpu"], idle["waits"]) == (
        "ready", "sglang 0.5.16", "ready", None, [],
    )  # fmt: skip
    assert (idle["in_hand"], idle["in_hand_limit"], idle["in_flight"], idle["in_flight_limit"]) == (
        0,
        320,
        2,
        256,
    )
    assert (starts["state"], starts["runtime"], starts["host"]) == ("waiting", "sglang", "host-7")
    assert starts["waits"] == [{"name": "runtime", "reason": "SGLang starts", "since": _SINCE.isoformat()}]
    assert ledger_workers.counts(ledger) == {"ready": 1, "waiting": 1, "silent": 0}


def test_each_beat_is_an_update_in_place(ledger: Engine) -> None:
    """Its pages do not grow with the beats, and no index is written."""
    names = [f"sglang-gpu{n % 8}-h100-{n}@host-{n // 8}" for n in range(64)]
    for beat in range(10):
        for name in names:
            register_worker(
                ledger,
                worker_status(name, in_hand=beat, waiting=(Wait("runtime", "x" * beat),)),
                silent_after_s=30,
            )
    with ledger.connect() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        (updates, in_place) = connection.execute(
            text("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'worker'")
        ).one()
        size = connection.execute(text("SELECT pg_relation_size('worker')")).scalar_one()
    assert updates == 9 * len(names)
    assert in_place / updates > 0.9
    assert size < 200_000


def test_one_that_is_not_heard_of_in_time_is_silent_and_forgotten_after_a_day(ledger: Engine) -> None:
    for name in ("well", "died", "long ago"):
        register_worker(ledger, worker_status(name), silent_after_s=30)
    age(ledger, "died", "45 seconds")
    age(ledger, "long ago", "25 hours")
    assert ledger_workers.counts(ledger) == {"ready": 1, "waiting": 0, "silent": 2}
    died = shown(ledger)["died"]
    assert (died["state"], round(died["seen_s"])) == ("silent", 45)
    expire(ledger, worker="well", max_crashes=3)
    assert set(shown(ledger)) == {"died", "well"}
    register_worker(ledger, worker_status("died"), silent_after_s=30)
    assert ledger_workers.counts(ledger) == {"ready": 2, "waiting": 0, "silent": 0}, "it was only cut off"


@pytest.mark.parametrize("later_s", [0, 1])
def test_an_end_takes_its_own_row_and_not_that_of_one_which_took_the_name_over(
    ledger: Engine, later_s: int
) -> None:
    first = worker_status("w1")
    register_worker(ledger, first, silent_after_s=30)
    register_worker(
        ledger,
        first.model_copy(update={"started_at": first.started_at + timedelta(seconds=later_s)}),
        silent_after_s=30,
    )
    unregister_worker(ledger, "w1", first.started_at)
    assert set(shown(ledger)) == ({"w1"} if later_s else set())


def test_a_worker_of_the_release_before_is_shown_while_it_holds_something(ledger: Engine) -> None:
    claimed(ledger, worker="old")
    register_worker(ledger, worker_status("new"), silent_after_s=30)
    claimed(ledger, worker="new")
    old, new = shown(ledger)["old"], shown(ledger)["new"]
    assert (old["state"], old["in_hand"], old["in_hand_limit"]) == (None, 1, None)
    assert (new["state"], new["in_hand"]) == ("ready", 1)
