"""The ledger's metrics. One process (`vetline metrics`) reads and serves them for all machines."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from moderation.assessment import Priority, State
from moderation.celery_message import REASONS
from moderation.doorbell import Doorbell
from moderation.errors import BrokerUnavailable
from moderation.ledger.audit.turn import breach_counts
from moderation.ledger.gauge_poller import GaugePoller
from moderation.ledger.golden import population_stability
from moderation.log import get_logger
from moderation.metrics import Described, describe
from moderation.plain_queue import PlainQueue

log = get_logger(__name__)

_L = "ledger"

_ASSESSMENTS = describe("gauge", "vetline_ledger_assessments", "Assessments by state.", ["state"], where=_L)
_WAITING = describe(
    "gauge",
    "vetline_ledger_queue_depth",
    "Queued assessments by priority; stage: due, later (put off), or rung (a message is under way).",
    ["priority", "stage"],
    where=_L,
)
_AGE = describe(
    "gauge",
    "vetline_ledger_queue_age_seconds",
    "For how long the oldest queued assessment has been due or rung.",
    ["priority"],
    where=_L,
)
_RUNNING = {
    "running": describe("gauge", "vetline_ledger_running", "Claims under a lease.", where=_L),
    "overdue": describe("gauge", "vetline_ledger_leases_overdue", "Claims whose lease ran out.", where=_L),
    "workers": describe("gauge", "vetline_ledger_workers", "Workers that hold claims.", where=_L),
    "oldest_s": describe("gauge", "vetline_ledger_claim_age_seconds", "Age of the oldest claim.", where=_L),
}
_WORKERS_SEEN = describe(
    "gauge",
    "vetline_ledger_workers_seen",
    "Worker processes: ready, waiting for something, or silent (not heard of in time; forgotten after a day).",
    ["state"],
    where=_L,
)
_FAILURES = describe("gauge", "vetline_ledger_failures", "Failed assessments by code.", ["code"], where=_L)
_REJECTED = describe(
    "gauge",
    "vetline_ledger_rejected_messages",
    "Messages of plain Celery clients that were rejected, and neither sent again nor dropped, by reason.",
    ["code"],
    where=_L,
)
_PLAIN = describe(
    "gauge",
    "vetline_redis_plain_messages",
    "Messages of plain Celery clients waiting in Redis, by queue; in `celery` they wait for ever unless it is read.",
    ["queue"],
    where=_L,
)
_SWEEP_AGE = describe(
    "gauge", "vetline_ledger_sweep_age_seconds", "Since any worker last swept the ledger.", where=_L
)
_SWEPT = {
    "rung": describe(
        "counter", "vetline_ledger_rung_total", "Rows rung by sweepers, of all workers.", where=_L
    ),
    "expired": describe(
        "counter", "vetline_ledger_leases_expired_total", "Claims freed from workers that died.", where=_L
    ),
}
_GOLDEN = {
    "recall": describe(
        "gauge",
        "vetline_golden_recall",
        "Of the last 200 golden items of a policy that were judged, how many Unsafe ones were found.",
        ["policy"],
        where=_L,
    ),
    "specificity": describe(
        "gauge",
        "vetline_golden_specificity",
        "Of the last 200 golden items of a policy that were judged, how many Safe ones passed.",
        ["policy"],
        where=_L,
    ),
}
_GOLDEN_JUDGED = describe(
    "gauge",
    "vetline_golden_judged",
    "How many of the last 200 golden items there are by label and outcome: found, missed, false_alarm, passed, failed.",
    ["policy", "outcome"],
    where=_L,
)
_PSI = describe(
    "gauge",
    "vetline_p_unsafe_psi",
    "Population stability index of P(unsafe): the last week's live verdicts against the week before.",
    ["policy"],
    where=_L,
)
_AUDIT = {
    "accepted": describe("gauge", "vetline_ledger_accepted", "At the last audit: all assessments.", where=_L),
    "open": describe(
        "gauge",
        "vetline_ledger_open",
        "At the last audit: open ones that will be rung or are leased.",
        where=_L,
    ),
    "terminal": describe(
        "gauge",
        "vetline_ledger_terminal",
        "At the last audit: ended ones, with what they ended in.",
        where=_L,
    ),
}
_UNACCOUNTED = describe(
    "gauge",
    "vetline_ledger_unaccounted",
    "At the last audit: accepted - open - terminal, and verdicts of what is not done. Anything but 0 is a defect.",
    where=_L,
)
_BREACHES = describe(
    "gauge",
    "vetline_audit_breaches",
    "Where the ledger contradicts itself, by check, in the audit's last whole round. Anything but 0 is a defect.",
    ["check"],
    where=_L,
)
_AUDIT_TIMES = {
    "taken_at": describe(
        "gauge",
        "vetline_audit_last_turn_timestamp_seconds",
        "When a worker last audited some of this part.",
        ["part"],
        where=_L,
    ),
    "completed_at": describe(
        "gauge",
        "vetline_audit_last_complete_timestamp_seconds",
        "When the audit last came to the end of this part; 0: never yet.",
        ["part"],
        where=_L,
    ),
}
_AUDIT_ROWS = describe(
    "gauge",
    "vetline_audit_rows",
    "Rows that the audit has compared in its present round.",
    ["part"],
    where=_L,
)
_MESSAGES = describe("gauge", "vetline_redis_messages", "Messages waiting in Redis, both queues.", where=_L)
_UP = describe("gauge", "vetline_service_up", "1 where the service answered.", ["service"], where=_L)
_READ_SECONDS = describe(
    "gauge", "vetline_ledger_read_seconds", "How long the last reading took.", ["reading"], where=_L
)
_READ_AGE = describe(
    "gauge", "vetline_ledger_read_age_seconds", "How old the reading is that is shown.", ["reading"], where=_L
)


class LedgerCollector(Collector):
    """Shows what a watch has read; asks Redis itself, which takes no time."""

    def __init__(self, watch: GaugePoller, doorbell: Doorbell, plain: PlainQueue) -> None:
        self._watch = watch
        self._plain = plain
        self._doorbell = doorbell

    def collect(self) -> Iterator[Metric]:
        kept = self._watch.kept()
        for name, show in SHOWN.items():
            if name in kept:
                yield from show(kept[name].value, kept[name].age_s)
        yield _gauge(_READ_SECONDS, {(name,): one.took_s for name, one in kept.items()})
        yield _gauge(_READ_AGE, {(name,): one.age_s for name, one in kept.items()})
        messages = self._messages()
        if messages is not None:
            yield _gauge(_MESSAGES, {(): messages})
            yield _gauge(_PLAIN, {(queue,): count for queue, count in self._plain_messages().items()})
        yield _gauge(_UP, {("postgres",): self._watch.answers, ("redis",): messages is not None})

    def _plain_messages(self) -> dict[str, int]:
        """Nothing where this user may not ask."""
        try:
            return self._plain.depths()
        except BrokerUnavailable as exc:
            log.warning("redis_not_read", error=str(exc))
            return {}

    def _messages(self) -> int | None:
        try:
            return self._doorbell.depth()
        except BrokerUnavailable as exc:
            log.warning("redis_not_read", error=str(exc))
            return None


def _gauge(described: Described, values: Mapping[Any, float]) -> Metric:
    """values: by the labels' values, a tuple."""
    family = GaugeMetricFamily(described.name, described.help, labels=described.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _counts(counts: dict[str, int], age_s: float) -> Iterator[Metric]:
    yield _gauge(_ASSESSMENTS, {(state.value,): counts.get(state.value, 0) for state in State})


def _waiting(rows: list[dict[str, Any]], age_s: float) -> Iterator[Metric]:
    by_priority = {row["priority"]: row for row in rows}
    values = {
        (priority.name.lower(), stage): by_priority.get(priority.value, {}).get(stage, 0)
        for priority in Priority
        for stage in ("due", "later", "rung")
    }
    yield _gauge(_WAITING, values)


def _oldest(rows: list[dict[str, Any]], age_s: float) -> Iterator[Metric]:
    ages = {row["priority"]: row["age_s"] or 0.0 for row in rows}
    yield _gauge(_AGE, {(priority.name.lower(),): ages.get(priority.value, 0.0) for priority in Priority})


def _running(row: dict[str, Any], age_s: float) -> Iterator[Metric]:
    for field, described in _RUNNING.items():
        yield _gauge(described, {(): row[field]})


def _workers(counts: dict[str, int], age_s: float) -> Iterator[Metric]:
    yield _gauge(_WORKERS_SEEN, {(state,): count for state, count in counts.items()})


def _failures(rows: list[dict[str, Any]], age_s: float) -> Iterator[Metric]:
    yield _gauge(_FAILURES, {(row["code"] or "none",): row["n"] for row in rows})


def _rejected(counts: dict[str, int], age_s: float) -> Iterator[Metric]:
    yield _gauge(_REJECTED, {(code,): counts.get(code, 0) for code in {**REASONS, **counts}})


def _sweep(row: dict[str, Any] | None, age_s: float) -> Iterator[Metric]:
    """Nothing where nobody ever swept."""
    if row is None:
        return
    yield _gauge(_SWEEP_AGE, {(): row["age_s"] + age_s})
    for field, described in _SWEPT.items():
        family = CounterMetricFamily(described.name, described.help)
        family.add_metric((), row[field])
        yield family


def _audit(row: dict[str, int], age_s: float) -> Iterator[Metric]:
    for field, described in _AUDIT.items():
        yield _gauge(described, {(): row[field]})
    missing = row["accepted"] - row["open"] - row["terminal"]
    yield _gauge(_UNACCOUNTED, {(): abs(missing) + row["stray_verdicts"]})


def _golden(rows: list[dict[str, Any]], age_s: float) -> Iterator[Metric]:
    """No share where nothing of a class was judged."""
    shares = {"recall": ("tp", "fn"), "specificity": ("tn", "fp")}
    for name, (right, wrong) in shares.items():
        judged = [row for row in rows if row[right] + row[wrong]]
        yield _gauge(
            _GOLDEN[name], {(row["policy"],): row[right] / (row[right] + row[wrong]) for row in judged}
        )
    outcomes = {"tp": "found", "fn": "missed", "fp": "false_alarm", "tn": "passed", "failed": "failed"}
    yield _gauge(
        _GOLDEN_JUDGED,
        {(row["policy"], said): row[field] for row in rows for field, said in outcomes.items()},
    )


def _scores(rows: list[dict[str, Any]], age_s: float) -> Iterator[Metric]:
    yield _gauge(_PSI, {(policy,): value for policy, value in population_stability(rows).items()})


def _reconciled(rows: list[dict[str, Any]], age_s: float) -> Iterator[Metric]:
    yield _gauge(_BREACHES, {(check,): count for check, count in breach_counts(rows).items()})
    for field, described in _AUDIT_TIMES.items():
        yield _gauge(described, {(row["part"],): row[field] or 0 for row in rows})
    yield _gauge(_AUDIT_ROWS, {(row["part"],): row["rows"] for row in rows})


SHOWN: dict[str, Callable[[Any, float], Iterator[Metric]]] = {
    "counts": _counts,
    "waiting": _waiting,
    "oldest": _oldest,
    "running": _running,
    "workers": _workers,
    "failures": _failures,
    "rejected": _rejected,
    "sweep": _sweep,
    "golden": _golden,
    "scores": _scores,
    "audit": _audit,
    "reconciled": _reconciled,
}
