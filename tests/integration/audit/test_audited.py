"""The audit while work goes on, in its time, in turns, and as a command."""

import json
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import click.testing
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from moderation.cli.audit import commands
from moderation.cursor import START
from moderation.errors import HostUnavailable, InvalidSubmission, NotFound
from moderation.ledger import feed, retention
from moderation.ledger.audit.finding import AuditCheck
from moderation.ledger.audit.run import audit
from moderation.ledger.audit.turn import breach_counts, places
from moderation.ledger.claim import claim
from moderation.ledger.outcomes import fail, give_back, try_later
from moderation.ledger.relay import ring_due
from moderation.ledger.retry import cancel_queued, retry_failed
from moderation.ledger.selection import Selection
from moderation.ledger.sweep import expire
from tests.support.commands import run
from tests.support.ledger import record, submitted, verdict
from tests.support.many import judge_many
from tests.support.pages import blocks, filled, typed
from tests.support.waiting import wait_for
from tests.support.worked import kinds, plant, turn

Ids = dict[str, UUID]


def test_a_ledger_at_work_shows_no_breach(ledger: Engine) -> None:
    """Threads submit, claim, record, fail, retry, cancel, lose leases and clear, while it is audited."""
    stopped = threading.Event()
    failures: list[BaseException] = []
    threads = [
        threading.Thread(target=_toil, args=(ledger, number, stopped, failures)) for number in range(6)
    ]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(feed.read(ledger, START, limit=50).verdicts) == 50, what="verdicts")
        for rows in (20, 500, 50, 1000):
            report = audit(ledger, rows=rows, limit_s=8)
            assert report.findings == []
            assert report.parts[0].rows > 50
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert failures == []
    report = audit(ledger)
    assert (report.findings, report.complete) == ([], True)


def _toil(engine: Engine, number: int, stopped: threading.Event, failures: list[BaseException]) -> None:
    drawn = random.Random(number)
    acts: list[Callable[[], object]] = [
        lambda: _do_one(engine, drawn),
        lambda: _do_one(engine, drawn),
        lambda: retry_failed(engine, Selection(batch="b"), limit=3),
        lambda: cancel_queued(engine, Selection(batch="c"), limit=1),
        lambda: expire(engine, worker="s", max_crashes=3),
        lambda: ring_due(engine, lambda due: None, urgent=5, others=5),
        lambda: list(retention.clear_raw(engine, datetime.now(UTC), rows=20)),
    ]
    try:
        while not stopped.is_set():
            drawn.choice(acts)()
    except BaseException as exc:
        failures.append(exc)
        raise


def _do_one(engine: Engine, drawn: random.Random) -> None:
    id_ = submitted(engine, batch=drawn.choice("abc"), tenant=drawn.choice([None, "t"]))
    for item in claim(engine, [id_], worker="w", lease_s=drawn.choice([30, -1])):
        ending = drawn.randrange(5)
        if ending < 2:
            record(engine, item, verdict(), worker="w")
        elif ending == 2:
            fail(engine, item, NotFound("404"), worker="w", timings_ms={})
        elif ending == 3:
            try_later(engine, item, HostUnavailable("5"), worker="w", delay_s=0, timings_ms={})
        else:
            give_back(engine, item, worker="w")


def test_an_audit_ends_in_its_time_and_says_that_it_did_not_see_all(ledger: Engine) -> None:
    judge_many(ledger, 12_000)
    start = time.monotonic()
    report = audit(ledger, limit_s=0.2, rows=200)
    assert time.monotonic() - start < 5
    assert not report.complete
    assert 0 < report.parts[0].rows < 12_000
    assert report.findings == []


def test_a_part_of_the_ledger_is_audited_by_age(ledger: Engine) -> None:
    judge_many(ledger, 50, start="2026-01-01 00:00+00")
    judge_many(ledger, 30, start="2026-03-01 00:00+00", batch="late", first=51)
    report = audit(ledger, since=datetime(2026, 2, 1, tzinfo=UTC))
    assert {part.part: part.rows for part in report.parts if part.part != "counters"} == {
        "assessments": 30, "feed": 30, "deliveries": 0
    }  # fmt: skip


def test_turns_go_on_from_where_the_last_ended_until_all_is_seen(ledger: Engine) -> None:
    judge_many(ledger, 1000)
    turns = 0
    while not all(row["completed_at"] for row in places(ledger)):
        assert turn(ledger, turn_s=1e-6 if turns % 2 else 0.01, rows=100) == []
        turns += 1
    assert turns > 5, "one turn came nowhere near the end"


def test_one_worker_has_the_turn_of_a_minute(ledger: Engine) -> None:
    assert turn(ledger, every_s=60) == []
    assert turn(ledger, every_s=60) is None
    with ledger.connect() as connection:
        connection.execute(text("UPDATE audit_place SET taken_at = taken_at - interval '60 s'"))
    assert turn(ledger, every_s=60) == []


def test_a_breach_stands_in_the_numbers_until_a_whole_round_has_passed_without_it(
    worked: Engine, ids: Ids
) -> None:
    plant(worked, "UPDATE assessment SET charged = charged + 1 WHERE id = :id", ids["done"])
    assert kinds(turn(worked) or []) == {
        (AuditCheck.CHARGES, "charged otherwise than its attempts say"): (str(ids["done"]),)
    }
    assert breach_counts(places(worked))["charges"] == 1
    plant(worked, "UPDATE assessment SET charged = charged - 1 WHERE id = :id", ids["done"])
    assert breach_counts(places(worked))["charges"] == 1
    assert turn(worked) == []
    assert set(breach_counts(places(worked)).values()) == {0}


def test_a_batch_too_large_for_a_turn_is_left_to_the_command(ledger: Engine) -> None:
    judge_many(ledger, 300)
    plant(ledger, "INSERT INTO tally (batch, tenant, state, n) VALUES ('many', '', 'done', 1)")
    assert turn(ledger, heavy_rows=200) == []
    assert [one.check for one in turn(ledger, heavy_rows=400) or ()] == [AuditCheck.COUNTERS]
    assert [one.check for one in audit(ledger).findings] == [AuditCheck.COUNTERS]


def typed_here(*words: str) -> click.testing.Result:
    return CliRunner().invoke(commands, list(words))


def test_the_command_says_what_it_found_and_exits_by_it(
    services_env: dict[str, str], worked: Engine, ids: Ids
) -> None:
    well = typed_here()
    assert (well.exit_code, well.stderr) == (0, "")
    assert well.stdout.splitlines()[-1] == "no breach"
    plant(worked, "!UPDATE verdict SET policy_revision_id = 999 WHERE assessment_id = :id", ids["done"])
    ill = typed_here()
    assert ill.exit_code == 1
    assert "feed: a verdict that the feed leaves out: " in ill.stdout
    assert str(ids["done"]) in ill.stdout
    assert max(len(line) for line in ill.stdout.splitlines()) <= 80
    told = json.loads(typed_here("--full", "--json").stdout)
    assert told["complete"]
    assert {one["check"] for one in told["breaches"]} == {"feed", "verdicts"}
    assert typed_here("--since", "1h").exit_code == 1
    assert isinstance(typed_here("--since", "1h", "--full").exception, InvalidSubmission)


def test_a_command_that_ran_out_of_time_says_so(services_env: dict[str, str], ledger: Engine) -> None:
    judge_many(ledger, 15_000)
    cut = typed_here("--limit-s", "0.1")
    assert cut.exit_code == 0
    assert "not all was covered" in cut.stderr
    assert " not all " in cut.stdout


def test_the_page_leads_from_the_alert_to_the_row(
    services_env: dict[str, str], worked: Engine, ids: Ids, tmp_path: Path
) -> None:
    plant(worked, "!UPDATE verdict SET attempt = 9 WHERE assessment_id = :id", ids["done"])
    find, explain = blocks("docs/operations.md", "The ledger contradicts itself")
    assert str(ids["done"]) in typed(find, tmp_path, services_env, codes=(1,))
    assert "done" in typed(filled(explain, ID=str(ids["done"])), tmp_path, services_env)


def test_the_command_says_that_postgres_is_away(tmp_path: Path) -> None:
    away = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none", "REDIS_URL": "redis://127.0.0.1:9/0"}
    assert run(tmp_path, "audit", env=away).returncode == 75
