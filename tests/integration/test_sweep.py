"""What the sweeper frees, and what it spares: a lease says nothing of its worker where nobody could renew it."""

from sqlalchemy import Engine, text

from moderation.ledger.claim import beat
from moderation.ledger.sweep import expire
from tests.support.ledger import claimed, row

SPARE_S = 12.0


def swept(ledger: Engine, seconds_ago: float) -> None:
    """Let the last sweep lie so far back."""
    expire(ledger, worker="w0", max_crashes=10)
    with ledger.connect() as connection:
        connection.execute(
            text("UPDATE sweep SET swept_at = now() - make_interval(secs => :ago)"), {"ago": seconds_ago}
        )


def lease_left_s(ledger: Engine) -> float:
    with ledger.connect() as connection:
        left = text("SELECT extract(epoch FROM min(lease_until) - now())::float FROM assessment")
        return float(connection.execute(left).scalar_one())


def test_leases_that_ran_out_while_nobody_could_sweep_are_left_for_one_more_beat(ledger: Engine) -> None:
    swept(ledger, 40)
    alive, dead = claimed(ledger, lease_s=-1), claimed(ledger, lease_s=-1)
    assert expire(ledger, worker="w1", max_crashes=10, awake_s=3600, spare_s=SPARE_S) == []
    assert SPARE_S - 2 < lease_left_s(ledger) <= SPARE_S
    assert beat(ledger, [alive], lease_s=30) == set()
    with ledger.connect() as connection:  # the twelve seconds pass
        connection.execute(text("UPDATE assessment SET lease_until = lease_until - interval '12 s'"))
    assert expire(ledger, worker="w1", max_crashes=10, awake_s=3600, spare_s=SPARE_S) == [dead.id]
    assert row(ledger, alive.id)["state"] == "running"


def test_a_lease_that_lasts_longer_than_the_spared_time_is_not_shortened(ledger: Engine) -> None:
    swept(ledger, 40)
    claimed(ledger, lease_s=30)
    expire(ledger, worker="w1", max_crashes=10, awake_s=3600, spare_s=SPARE_S)
    assert lease_left_s(ledger) > SPARE_S + 2


def test_a_worker_that_started_when_nobody_swept_any_more_frees_at_once(ledger: Engine) -> None:
    """It did not see whether Postgres was away or all workers had died; the latter is what a restart looks like."""
    swept(ledger, 40)
    dead = claimed(ledger, lease_s=-1)
    assert expire(ledger, worker="w1", max_crashes=10, awake_s=5, spare_s=SPARE_S) == [dead.id]


def test_nothing_is_spared_while_somebody_sweeps(ledger: Engine) -> None:
    swept(ledger, 1)
    dead = claimed(ledger, lease_s=-1)
    assert expire(ledger, worker="w1", max_crashes=10, awake_s=3600, spare_s=SPARE_S) == [dead.id]
