"""What Vetline counts: every metric with its name, labels and buckets. docs/metrics.md is the same as a table.

Names are stable, for dashboards and alerts stand on them. All but the ledger's own (`moderation.ledger.gauges`) are
in prometheus_client's default registry, so a service with a /metrics of its own shows the producer's there too.

A process counts what it did itself; what stands in the ledger is read from the ledger, once for all machines. No
label holds an id, a URI, a batch or a host: Prometheus knows the instance, and the rest has no bound.
"""

from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

from moderation.assessment import Ticket

# Seconds. From a known picture on this disk to a whole ladder of asks, whose limit is 120 s.
STEP_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
SUBMIT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Described:
    """A metric as docs/metrics.md lists it. where: producer, door, worker or ledger."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    where: str


DESCRIBED: list[Described] = []


def describe(kind: Kind, name: str, help_: str, labels: Sequence[str] = (), *, where: str) -> Described:
    """Note a metric, so that docs, dashboards and alerts can be checked against what there is."""
    described = Described(name, kind, tuple(labels), help_, where)
    DESCRIBED.append(described)
    return described


def _counter(name: str, help_: str, labels: Sequence[str] = (), *, where: str = "worker") -> Counter:
    describe("counter", name, help_, labels, where=where)
    return Counter(name, help_, labels)


def _gauge(name: str, help_: str, labels: Sequence[str] = (), *, where: str = "worker") -> Gauge:
    describe("gauge", name, help_, labels, where=where)
    return Gauge(name, help_, labels)


def _histogram(
    name: str, help_: str, labels: Sequence[str] = (), *, buckets: Sequence[float], where: str = "worker"
) -> Histogram:
    describe("histogram", name, help_, labels, where=where)
    return Histogram(name, help_, labels, buckets=buckets)


# Submit and ring

ACCEPTED = _counter(
    "vetline_accepted_total", "Assessments that this process committed.", ["policy"], where="producer"
)
KNOWN = _counter(
    "vetline_known_total",
    "Submissions whose key was known: no new assessment.",
    ["policy"],
    where="producer",
)
SUBMIT_SECONDS = _histogram(
    "vetline_submit_seconds",
    "One statement of submissions, until it is committed, repeats included.",
    buckets=SUBMIT_BUCKETS_S,
    where="producer",
)
RUNG = _counter(
    "vetline_rung_total",
    "Messages sent to Redis, by who sent them: producer, sweeper or plain (for plain clients).",
    ["by"],
    where="producer, worker",
)

# The HTTP API

HTTP_SECONDS = _histogram(
    "vetline_door_seconds",
    "Requests to `vetline serve`, by the template of their route (none: refused before one was found) and status.",
    ["route", "status"],
    buckets=SUBMIT_BUCKETS_S,
    where="door",
)

# The path of one image

CLAIMED = _counter("vetline_claimed_total", "Claims handed out to this worker.")
NOT_DUE = _counter(
    "vetline_not_due_total", "Messages whose row was not due: rung twice, ended, or cancelled."
)
STEP_SECONDS = _histogram(
    "vetline_step_seconds",
    "One step of an attempt: claim, fetch, decode, judge, record (failures too), or trial.",
    ["step"],
    buckets=STEP_BUCKETS_S,
)
ATTEMPTS = _counter(
    "vetline_attempts_total",
    "Ended attempts: done, failed, retried, given_back, or lost at the fence; code is the error's, or none.",
    ["outcome", "code"],
)
VERDICTS = _counter(
    "vetline_verdicts_total",
    "Verdicts recorded. category: O1, O2 ... or NA. reused: another verdict about the same pixels answered.",
    ["policy", "rating", "category", "reused"],
)
REVIEWS = _counter("vetline_needs_review_total", "Verdicts that a person should look at.", ["policy"])
ASKS = _counter(
    "vetline_asks_total",
    "Questions to the judge by rung of the ladder; result: parsed or malformed.",
    ["rung", "result"],
)

# In hand, leases, the gate

IN_HAND = _gauge("vetline_in_hand", "Claims that this worker holds.")
BUSY_THREADS = _gauge("vetline_busy_threads", "Threads that work on claims or wait for a slot at the judge.")
BUSY_THREADS_LIMIT = _gauge(
    "vetline_busy_threads_limit", "Threads that may be busy at once; follows vetline_in_flight_limit."
)
LEASES_LOST = _counter(
    "vetline_leases_lost_total",
    "Leases that this worker lost while it worked: seen by the heartbeat (beat) or when it wrote (fence).",
    ["seen_by"],
)
BEATS_MISSED = _counter("vetline_beats_missed_total", "Heartbeats that did not reach Postgres.")
GATE_OPEN = _gauge("vetline_gate_open", "1 while this worker takes work; 0 while something it needs is down.")
GATE_SHUT = _counter("vetline_gate_shut_total", "Times the gate shut, by the error's code.", ["code"])
TRIALS = _counter("vetline_trials_total", "Suspects run alone under observation.", ["result"])
STALLS = _counter(
    "vetline_consumer_stalls_total", "Times messages waited and none arrived, so the consumer reconnected."
)

# The sweeper

SWEEPS = _counter(
    "vetline_sweeps_total",
    "Rounds of this worker's sweeper; result: swept, elsewhere, no_ledger, no_redis or failed.",
    ["result"],
)
LEASES_EXPIRED = _counter(
    "vetline_leases_expired_total", "Claims freed from workers that died, by this sweeper."
)
RINGS_LOST = _counter("vetline_rings_lost_total", "Messages found lost, and rung again, by this sweeper.")
EXPIRED = _counter(
    "vetline_expired_total", "Rows cancelled, by this sweeper, for they waited until they expired."
)

# Messages of plain Celery clients

PLAIN = _counter(
    "vetline_plain_messages_total",
    "Messages of plain Celery clients: accepted, ring (they name rows), or returned from a worker that died.",
    ["outcome"],
)
REJECTED = _counter(
    "vetline_rejected_messages_total",
    "Messages of which no row could be made, by reason; `vetline rejected` lists them.",
    ["code"],
)
MALFORMED = _counter(
    "vetline_malformed_messages_total",
    "Messages that this process set aside unread: where = ring (lists of rows), control, event or reply.",
    ["where"],
    where="worker",
)

# The runtime and the worker itself

READY = _gauge("vetline_ready", "1 while this worker would take an item; 0 while it waits for something.")
IN_FLIGHT = _gauge("vetline_in_flight", "Images that the judge is being asked about.")
IN_FLIGHT_LIMIT = _gauge("vetline_in_flight_limit", "As many as it is asked about at once; found by itself.")

RUNTIME_STATE = _gauge(
    "vetline_runtime_state", "1 for the state that the runtime is in, 0 for others.", ["state"]
)
RUNTIME_RESTARTS = _counter(
    "vetline_runtime_restarts_total",
    "Times the worker replaced its runtime: planned, or since it failed.",
    ["reason"],
)
WORKER_INFO = _gauge(
    "vetline_worker_info", "Always 1; says what this worker is.", ["worker", "judge", "gpu", "version"]
)


@contextmanager
def timed(histogram: Histogram) -> Iterator[None]:
    """Observes the block's seconds, however it ends."""
    start = perf_counter()
    try:
        yield
    finally:
        histogram.observe(perf_counter() - start)


def count_tickets(tickets: Sequence[Ticket]) -> None:
    """What a submission made, by policy, and what was known."""
    made = Tally((ticket.policy.partition("@")[0], ticket.known) for ticket in tickets)
    for (policy, known), count in made.items():
        (KNOWN if known else ACCEPTED).labels(policy).inc(count)


def category_id(category: str) -> str:
    """O4 of "O4: Nudity Content"; a label must not hold a policy's own words."""
    return category.partition(":")[0].strip()[:8] or "NA"


def runtime_is(state: str, known: Sequence[str]) -> None:
    """Show this state as the one of all those known."""
    for other in known:
        RUNTIME_STATE.labels(other).set(other == state)
