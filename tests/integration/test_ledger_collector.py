"""`vetline metrics`: the ledger's numbers, true, cheap, and absent rather than old."""

import time
import urllib.request

import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from moderation.doorbell import Doorbell
from moderation.errors import NotFound
from moderation.ledger import counters, golden
from moderation.ledger.audit.turn import take_turn
from moderation.ledger.engine import open_ledger
from moderation.ledger.gauge_poller import GaugePoller
from moderation.ledger.gauges import GaugeQuery, audit
from moderation.ledger.migrate import upgrade
from moderation.ledger.outcomes import fail
from moderation.ledger.sweep import expire
from moderation.ledger.workers import register_worker
from moderation.ledger_collector import SHOWN, LedgerCollector
from moderation.metrics import DESCRIBED
from moderation.plain_queue import PlainQueue
from moderation.services.postgres import LocalPostgres
from moderation.settings import AuditSettings
from moderation.verdict import Rating
from tests.support.ledger import POLICY, claimed, record, submitted, verdict, worker_status
from tests.support.metrics_command import exporter
from tests.support.waiting import wait_for

Sample = dict[tuple[str, frozenset[tuple[str, str]]], float]


def numbers(engine: Engine, redis_url: str) -> Sample:
    watch = GaugePoller(engine)
    watch.read()
    return shown(LedgerCollector(watch, Doorbell(redis_url), PlainQueue(redis_url)))


def shown(collector: LedgerCollector) -> Sample:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def of(samples: Sample, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


@pytest.fixture
def busy(ledger: Engine) -> Engine:
    """One of each: due, rung, put off, running, overdue, done, failed."""
    engine = ledger
    register_worker(engine, worker_status("w1"), silent_after_s=60)
    register_worker(engine, worker_status("w2"), silent_after_s=-1)
    register_worker(engine, worker_status("w3"), silent_after_s=60)
    submitted(engine, priority=0)
    submitted(engine, rung=True, priority=2)
    claimed(engine)
    claimed(engine, worker="w2", lease_s=-5)
    record(engine, claimed(engine), verdict(), worker="w1")
    fail(engine, claimed(engine), NotFound("gone"), worker="w1", timings_ms={})
    later = submitted(engine)
    with engine.connect() as connection:
        connection.execute(
            text("UPDATE assessment SET ring_at = now() + interval '1 hour' WHERE id = :id"), {"id": later}
        )
        connection.execute(text("UPDATE assessment SET ring_at = now() - interval '90 s' WHERE priority = 0"))
    return engine


def test_what_stands_in_the_ledger_is_shown(busy: Engine, redis_url: str) -> None:
    found = numbers(busy, redis_url)
    states = {"queued": 3, "running": 2, "done": 1, "failed": 1, "cancelled": 0}
    assert {s: of(found, "vetline_ledger_assessments", state=s) for s in states} == states
    assert of(found, "vetline_ledger_queue_depth", priority="high", stage="due") == 1
    assert of(found, "vetline_ledger_queue_depth", priority="low", stage="rung") == 1
    assert of(found, "vetline_ledger_queue_depth", priority="normal", stage="later") == 1
    assert 90 <= (of(found, "vetline_ledger_queue_age_seconds", priority="high") or 0) < 150
    assert of(found, "vetline_ledger_queue_age_seconds", priority="normal") == 0
    assert of(found, "vetline_ledger_leases_overdue") == 1
    assert of(found, "vetline_ledger_workers") == 2
    seen = {"ready": 2, "waiting": 0, "silent": 1}
    assert {s: of(found, "vetline_ledger_workers_seen", state=s) for s in seen} == seen
    assert of(found, "vetline_ledger_failures", code="not_found") == 1
    assert of(found, "vetline_redis_messages") == 0
    assert of(found, "vetline_service_up", service="postgres") == 1


def test_what_was_accepted_is_open_or_ended(busy: Engine, redis_url: str) -> None:
    found = numbers(busy, redis_url)
    assert of(found, "vetline_ledger_accepted") == 7
    assert of(found, "vetline_ledger_open") == 5
    assert of(found, "vetline_ledger_terminal") == 2
    assert of(found, "vetline_ledger_unaccounted") == 0


def test_a_row_that_is_done_without_a_verdict_is_unaccounted_for(busy: Engine, redis_url: str) -> None:
    with busy.connect() as connection:
        connection.execute(
            text("UPDATE assessment SET state = 'done', error_code = NULL WHERE state = 'failed'")
        )
    assert of(numbers(busy, redis_url), "vetline_ledger_unaccounted") == 1
    assert audit(busy)["terminal"] == 1


def test_a_sweep_shows_its_age_and_what_it_freed(busy: Engine, redis_url: str) -> None:
    assert of(numbers(busy, redis_url), "vetline_ledger_sweep_age_seconds") is None, "nobody swept"
    expire(busy, worker="w1", max_crashes=10)
    found = numbers(busy, redis_url)
    assert 0 <= (of(found, "vetline_ledger_sweep_age_seconds") or 0) < 60
    assert of(found, "vetline_ledger_leases_expired_total") == 1


def test_a_breach_that_the_audit_found_is_shown_by_its_check(busy: Engine, redis_url: str) -> None:
    assert of(numbers(busy, redis_url), "vetline_audit_breaches", check="charges") == 0
    assert of(numbers(busy, redis_url), "vetline_audit_last_complete_timestamp_seconds", part="feed") == 0
    with busy.connect() as connection:
        connection.execute(text("UPDATE assessment SET charged = charged + 1"))
    take_turn(busy, AuditSettings(turn_s=30))
    found = numbers(busy, redis_url)
    assert of(found, "vetline_audit_breaches", check="charges") == 7
    assert of(found, "vetline_audit_breaches", check="feed") == 0
    for when in ("last_turn", "last_complete"):
        at = of(found, f"vetline_audit_{when}_timestamp_seconds", part="feed") or 0
        assert abs(time.time() - at) < 60


def test_every_metric_of_the_ledger_is_shown_and_no_other(busy: Engine, redis_url: str) -> None:
    expire(busy, worker="w1", max_crashes=10)
    found = {name for name, _ in numbers(busy, redis_url)}
    shown_with_data = {
        "vetline_golden_recall",
        "vetline_golden_specificity",
        "vetline_golden_judged",
        "vetline_p_unsafe_psi",
    }
    assert found == {metric.name for metric in DESCRIBED if metric.where == "ledger"} - shown_with_data


def test_golden_items_are_shown_by_policy_and_a_drift_of_scores_is(busy: Engine, redis_url: str) -> None:
    golden.add_golden(busy, POLICY, [golden.NewItem("https://images.test/known.jpg", True, None)], by="ann")
    golden.set_rate(busy, POLICY, 1, by="ann")
    submitted(busy)
    with busy.connect() as connection:
        id_ = connection.execute(text("SELECT id FROM assessment WHERE purpose = 'golden'")).scalar_one()
    record(busy, claimed(busy, id_), verdict(rating=Rating.UNSAFE), worker="w1")
    found = numbers(busy, redis_url)
    assert of(found, "vetline_golden_recall", policy=POLICY) == 1
    assert of(found, "vetline_golden_judged", policy=POLICY, outcome="found") == 1
    assert of(found, "vetline_golden_specificity", policy=POLICY) is None, "no Safe one was judged"
    moved = [{"policy": POLICY, "week": week, "bin": 9 * week + 1, "n": 300} for week in (0, 1)]
    (drift,) = SHOWN["scores"](moved, 0)
    assert (drift.name, drift.samples[0].labels) == ("vetline_p_unsafe_psi", {"policy": POLICY})
    assert drift.samples[0].value > 1


def test_an_answer_serves_for_its_pause(busy: Engine, redis_url: str) -> None:
    watch = GaugePoller(busy)
    collector = LedgerCollector(watch, Doorbell(redis_url), PlainQueue(redis_url))
    watch.read()
    submitted(busy)
    watch.read()
    assert of(shown(collector), "vetline_ledger_assessments", state="queued") == 3


def test_numbers_that_cannot_be_read_are_not_shown(own_postgres: LocalPostgres, redis_url: str) -> None:
    engine = open_ledger(own_postgres.url)
    upgrade(engine)
    watch = GaugePoller(engine)
    counts = (GaugeQuery("counts", counters.counts, 0),)
    watch.read(counts)
    collector = LedgerCollector(watch, Doorbell(redis_url), PlainQueue(redis_url))
    assert of(shown(collector), "vetline_service_up", service="postgres") == 1
    own_postgres.stop()

    def is_noticed() -> bool:
        watch.read(counts)
        return of(shown(collector), "vetline_service_up", service="postgres") == 0

    wait_for(is_noticed, timeout_s=30, what="Postgres to be missed")
    assert of(shown(collector), "vetline_ledger_assessments", state="queued") is None
    engine.dispose()


def test_prometheus_reads_it_over_loopback(services_env: dict[str, str], busy: Engine) -> None:
    families: dict[str, Metric] = {}

    def is_complete() -> bool:
        with urllib.request.urlopen(url, timeout=30) as answer:
            families.update({f.name: f for f in text_string_to_metric_families(answer.read().decode())})
        return "vetline_ledger_accepted" in families

    with exporter() as url:
        assert url.startswith("http://127.0.0.1:")
        wait_for(is_complete, timeout_s=30, what="the first audit")
    (accepted,) = families["vetline_ledger_accepted"].samples
    assert accepted.value == 7
