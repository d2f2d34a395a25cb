"""Writers that race: whoever has a stale claim loses, whatever the order."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from sqlalchemy import Engine

from moderation.errors import RuntimeUnavailable
from moderation.ledger.claim import claim
from moderation.ledger.outcomes import WriteResult, give_back
from moderation.ledger.sweep import expire
from tests.support.conservation import violations
from tests.support.ledger import attempts, claimed, record, submitted, verdict
from tests.support.ledger_model import Held

LATER_S = 60.0  # so far ahead that no test lives to see it


def test_of_writers_that_race_at_one_fence_one_wins(ledger: Engine) -> None:
    """No model here: eight threads claim, die, sweep and write with whatever claim anybody ever got."""
    ids = [submitted(ledger) for _ in range(12)]
    held: list[Held] = [Held(claimed(ledger, ids[0], worker="w0"), "w0")]  # only ever appended to
    wins: list[tuple[UUID, int]] = []
    together = threading.Barrier(8)

    def one(seed: int) -> None:
        chance, worker = random.Random(seed), f"w{seed}"
        together.wait()
        for _ in range(60):
            # Half of the leases are over at once, so that there is something to sweep.
            taken = claim(
                ledger, chance.sample(ids, 3), worker=worker, lease_s=chance.choice([-1.0, LATER_S])
            )
            held.extend(Held(got, worker) for got in taken)
            late = chance.choice(held[-10:])
            if chance.random() < 0.3:
                expire(ledger, worker=worker, max_crashes=10_000)
            elif _written(ledger, late, chance):
                wins.append((late.claim.id, late.claim.attempt))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    assert violations(ledger, ids) == []
    assert len(wins) == len(set(wins)), "one winner at each fence"
    ended = {(id_, a["attempt"]) for id_ in ids for a in attempts(ledger, id_) if a["outcome"] != "crashed"}
    assert set(wins) == ended


def _written(ledger: Engine, held: Held, chance: random.Random) -> bool:
    if chance.random() < 0.05:  # seldom, or nothing would be left to race for
        return record(ledger, held.claim, verdict(), worker=held.worker) is WriteResult.WRITTEN
    error = RuntimeUnavailable("away")
    return give_back(ledger, held.claim, worker=held.worker, error=error) is WriteResult.WRITTEN
