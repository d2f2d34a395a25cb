"""What may happen to a ledger, as strategies of hypothesis: submissions, claims, deaths, writers, pauses and rings."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from moderation.assessment import Priority, Submission
from moderation.ledger.pauses import Scope
from tests.support.ledger import POLICY

WORKERS = ("w1", "w2", "w3")
STATE_AFTER = {"done": "done", "failed": "failed", "retried": "queued", "given_back": "queued"}

number = st.integers(0, 7)  # of an item or a claim, counted round
workers = st.sampled_from(WORKERS)
submissions = st.builds(
    Submission,
    uri=st.just("https://images.test/1.jpg"),
    policy=st.sampled_from([POLICY, "strict"]),
    priority=st.sampled_from(Priority),
    key=st.sampled_from([None, "k1", "k2"]),
    batch=st.sampled_from([None, "b1", "b2"]),
    tenant=st.sampled_from([None, "t1"]),
)
targets = st.sampled_from(
    [(Scope.BATCH, "b1"), (Scope.TENANT, "t1"), (Scope.POLICY, POLICY), (Scope.EVERYTHING, "")]
)
capped = st.sampled_from([(Scope.BATCH, "b1"), (Scope.BATCH, "b2"), (Scope.TENANT, "t1")])


@dataclass(frozen=True)
class Move:
    """One thing that happens: a method of the machine, and with what."""

    name: str
    given: dict[str, Any]


def move(name: str, **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Move]:
    return st.builds(Move, st.just(name), st.fixed_dictionaries(given))


# One rule that draws among moves, rather than a rule for each: hypothesis leaves out half of all rules in an example,
# and most examples would see no claim, or none that ends.
moves = st.one_of(
    move("submits", submission=submissions, due=st.booleans()),
    move("submits_again_after_a_lost_reply", which=number, due=st.booleans()),
    move("cancels", which=number),
    move("retries", which=st.none() | number),
    move("claims", which=st.none() | number, worker=workers),
    move("claims", which=st.none(), worker=workers),
    move("beats", first=number, count=st.integers(1, 8)),
    move("ends", which=number, verb=st.sampled_from(sorted(STATE_AFTER)), delayed=st.booleans()),
    move("ends", which=st.just(0), verb=st.sampled_from(["retried", "given_back"]), delayed=st.just(False)),
    move("a_namesake_ends", which=number, verb=st.sampled_from(["done", "failed"])),
    move("a_lease_runs_out", which=number),
    move("a_worker_dies", which=number, swept=st.booleans()),
    move("a_worker_dies", which=number, swept=st.just(True)),
    move("sweeps", worker=workers),
    move("pauses", target=targets),
    move("resumes", which=number),
    move("caps", target=capped, in_hand=st.none() | st.integers(1, 2)),
    move("its_time_comes", which=number),
    move("rings", limit=st.integers(1, 4), early=st.booleans(), redis_is_away=st.booleans()),
    move("rings", limit=st.integers(1, 2), early=st.just(True), redis_is_away=st.just(False)),
)
