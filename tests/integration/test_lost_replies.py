"""Writes whose reply was lost: the connection is cut at random points, and what became of the write is read, not guessed.

A cut leaves the writer not knowing. It writes again, as the processor and the client do, and afterwards there is one row,
whichever side of the commit the cut was on. The seeds are fixed; how far the server got is not.
"""

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import TypeVar
from uuid import UUID

import pytest
from sqlalchemy import Engine

from moderation.assessment import Claim, Submission
from moderation.errors import LedgerUnavailable, NotFound
from moderation.ledger import counters
from moderation.ledger.claim import claim
from moderation.ledger.outcomes import WriteResult, fail, give_back, try_later
from moderation.ledger.policies import pin
from moderation.ledger.submit import new_id, submit
from moderation.ledger.sweep import expire
from producer import Client
from tests.support.conservation import violations
from tests.support.ledger import POLICY, attempts, claimed, record, row, verdict
from tests.support.proxy import Proxy, through_proxy

T = TypeVar("T")

CUTS = 100
_TRIES = 5


class Cutter:
    """Cuts before, in and after what is asked, at seeded points, and repeats until an answer comes through."""

    def __init__(self, proxy: Proxy, seed: int, *, longest: int) -> None:
        """longest: bytes of the longest question; cuts fall anywhere in it."""
        self._proxy = proxy
        self._random = random.Random(seed)
        self._longest = longest
        self.failures = 0

    def settled(self, write: Callable[[], T]) -> T:
        """What the write says once it gets an answer."""
        cuts = self._proxy.cuts
        self._arm()
        for _ in range(_TRIES):
            try:
                return write()
            except LedgerUnavailable:
                self.failures += 1
                assert self._proxy.cuts > cuts, "nothing but the cut stands in the way"
        raise AssertionError(f"no answer in {_TRIES} tries")

    def _arm(self) -> None:
        if self._random.random() < 0.5:
            self._proxy.cut_after(up=self._random.randrange(self._longest))
        else:  # all or part of an answer is lost: the write itself stands
            self._proxy.cut_after(down=self._random.randrange(60))


def test_a_record_whose_reply_was_lost_is_settled_by_reading(
    ledger: Engine, far: Engine, proxy: Proxy
) -> None:
    cutter = Cutter(proxy, seed=1, longest=4000)
    endings: Counter[WriteResult] = Counter()
    for _ in range(CUTS):
        taken = claimed(ledger)
        endings[cutter.settled(partial(record, far, taken, verdict(), worker="w1"))] += 1
    assert set(endings) == {WriteResult.WRITTEN, WriteResult.REPEATED}, "cuts on both sides of the commit"
    assert endings[WriteResult.REPEATED] >= CUTS // 4
    assert cutter.failures >= CUTS // 2
    assert counters.counts(ledger) == {"done": CUTS}
    assert violations(ledger) == []


@pytest.mark.parametrize("verb", ["fail", "try_later", "give_back"])
def test_every_other_ending_whose_reply_was_lost_happens_once(
    ledger: Engine, far: Engine, proxy: Proxy, verb: str
) -> None:
    error = NotFound("gone")

    def end(taken: Claim) -> WriteResult:
        if verb == "fail":
            return fail(far, taken, error, worker="w1", timings_ms={})
        if verb == "try_later":
            return try_later(far, taken, error, worker="w1", delay_s=60, timings_ms={})
        return give_back(far, taken, worker="w1", error=error, delay_s=60)

    cutter = Cutter(proxy, seed=2, longest=1200)
    endings: Counter[WriteResult] = Counter()
    for _ in range(CUTS // 3):
        taken = claimed(ledger)
        endings[cutter.settled(partial(end, taken))] += 1
        assert len(attempts(ledger, taken.id)) == 1
    assert set(endings) == {WriteResult.WRITTEN, WriteResult.REPEATED}
    assert violations(ledger) == []


def test_a_record_settled_after_others_have_gone_on_is_still_its_own(
    ledger: Engine, far: Engine, proxy: Proxy
) -> None:
    """Given back, the reply lost, and before the writer asks again another worker has claimed and judged it."""
    taken = claimed(ledger)
    proxy.cut_after(down=0)
    with pytest.raises(LedgerUnavailable):
        give_back(far, taken, worker="w1")
    second = claimed(ledger, taken.id, worker="w2")
    assert record(ledger, second, verdict(), worker="w2") is WriteResult.WRITTEN
    assert give_back(far, taken, worker="w1") is WriteResult.REPEATED
    assert row(ledger, taken.id)["state"] == "done"
    assert violations(ledger) == []


def test_a_submission_whose_reply_was_lost_is_one_row(ledger: Engine, far: Engine, proxy: Proxy) -> None:
    pinned = pin(ledger, [POLICY])
    cutter = Cutter(proxy, seed=3, longest=1500)
    accepted = []
    for number in range(CUTS):
        key = f"k{number}" if number % 2 else None
        submissions = [Submission(uri=f"https://images.test/{number}.jpg", policy=POLICY, key=key)]
        ids = [new_id()]
        (ticket,) = cutter.settled(partial(submit, far, submissions, pinned, ids))
        assert (ticket.id, ticket.known) == (ids[0], False)
        accepted.append(ticket.id)
    assert cutter.failures >= CUTS // 2
    assert counters.counts(ledger) == {"queued": CUTS}
    assert violations(ledger, accepted) == []


def test_clients_whose_connections_are_cut_submit_each_image_once(ledger: Engine, postgres_url: str) -> None:
    """A client repeats by itself, after a wait: hence several at once, each behind a proxy of its own."""

    def one(seed: int) -> list[UUID]:
        chance = random.Random(seed)
        with through_proxy(postgres_url) as (proxy, url), Client(url, None) as client:
            accepted = [client.submit("https://images.test/first.jpg", POLICY).id]
            for number in range(CUTS // 8):
                if chance.random() < 0.5:
                    proxy.cut_after(up=chance.randrange(1500))
                else:
                    proxy.cut_after(down=chance.randrange(200))
                accepted.append(client.submit(f"https://images.test/{seed}/{number}.jpg", POLICY).id)
            assert proxy.cuts >= CUTS // 16
        return accepted

    with ThreadPoolExecutor(8) as pool:
        accepted = list(chain.from_iterable(pool.map(one, range(8))))
    assert len(set(accepted)) == len(accepted)
    assert counters.counts(ledger) == {"queued": len(accepted)}
    assert violations(ledger, accepted) == []


def test_a_claim_whose_reply_was_lost_comes_free_with_its_lease(
    ledger: Engine, far: Engine, proxy: Proxy
) -> None:
    """Nobody knows of it, so nobody renews it: the item waits for one lease and is charged nothing."""
    taken = claimed(ledger)
    give_back(ledger, taken, worker="w0")
    proxy.cut_after(down=0)
    with pytest.raises(LedgerUnavailable):
        claim(far, [taken.id], worker="w1", lease_s=-1)
    assert row(ledger, taken.id)["state"] == "running"
    assert claim(far, [taken.id], worker="w1", lease_s=45) == []
    assert expire(ledger, worker="w2", max_crashes=10) == [taken.id]
    assert row(ledger, taken.id)["charged"] == 0
    again = claimed(ledger, taken.id, worker="w2")
    assert record(ledger, again, verdict(), worker="w2") is WriteResult.WRITTEN
    assert violations(ledger) == []
