"""The audit: finds a planted breach of each kind and names it, and finds none where all is well, busy or not."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from moderation.cursor import START, Cursor
from moderation.errors import HostUnavailable, NotFound, RuntimeCrashed
from moderation.feed import Feed
from moderation.ledger import consumers, feed, migrate, retention, webhooks
from moderation.ledger.audit import attempts, states, verdicts
from moderation.ledger.audit.finding import Check, Finding
from moderation.ledger.audit.run import Report, audit
from moderation.ledger.audit.turn import places, standing, take_turn
from moderation.ledger.claim import claim
from moderation.ledger.ending import fail, give_back, give_back_crashed, try_later
from moderation.ledger.engine import open_ledger, transaction
from moderation.ledger.feed import EVERYTHING
from moderation.ledger.policies import seed_builtin
from moderation.ledger.reassess import Choice, change_of, reassess
from moderation.ledger.registry import add
from moderation.ledger.relay import ring_due
from moderation.ledger.retry import cancel_queued, retry_failed
from moderation.ledger.selection import Selection
from moderation.ledger.sweep import expire
from moderation.policy import load_policy
from moderation.services.postgres import LocalPostgres
from moderation.settings import AuditSettings
from tests.support.commands import run
from tests.support.ledger import claimed, record, submitted, verdict
from tests.support.many import judge_many
from tests.support.waiting import wait_for

Ids = dict[str, UUID]
_POLICY_FILE = "policy: city-news\ntitle: City news desk\n"
_SECRET = "whsec_x"


def kinds(found: Report | list[Finding]) -> dict[tuple[Check, str], tuple[str, ...]]:
    return {
        (one.check, one.what): one.ids for one in (found.findings if isinstance(found, Report) else found)
    }


@pytest.fixture
def worked(ledger: Engine) -> Engine:
    work(ledger)
    return ledger


@pytest.fixture
def ids(worked: Engine) -> Ids:
    """One assessment of each sort."""
    names = ("done", "failed", "running", "queued", "cancelled", "retried", "again")
    with worked.connect() as connection:
        found = connection.execute(
            text("SELECT key, id FROM assessment WHERE key = ANY(:names)"), {"names": list(names)}
        )
        return {row.key: row.id for row in found}


def work(engine: Engine) -> None:
    """All that happens to assessments: judged, failed, tried again, crashed, cancelled, retried, judged anew, cleared."""
    record(
        engine, claimed(engine, submitted(engine, key="done", batch="b", tenant="t")), verdict(), worker="w1"
    )
    fail(
        engine,
        claimed(engine, submitted(engine, key="failed", batch="b")),
        NotFound("404"),
        worker="w1",
        timings_ms={},
    )
    claimed(engine, submitted(engine, key="running"))
    submitted(engine, key="queued")
    submitted(engine, key="rung", rung=True)
    item = submitted(engine, key="cancelled", batch="b")
    give_back(engine, claimed(engine, item), worker="w1")
    cancel_queued(engine, Selection(ids=(item,)))
    _tried_again(engine)
    _failed_and_retried(engine)
    _lost_with_their_workers(engine)
    _reused(engine)
    _judged_anew(engine)
    list(retention.clear_raw(engine, datetime.now(UTC) + timedelta(days=1), rows=10))
    list(retention.clear_uris(engine, datetime.now(UTC) + timedelta(days=1), rows=10))


def _tried_again(engine: Engine) -> None:
    item = submitted(engine, key="retried")
    try_later(engine, claimed(engine, item), HostUnavailable("503"), worker="w1", delay_s=0, timings_ms={})
    give_back_crashed(engine, claimed(engine, item), RuntimeCrashed("gone"), worker="w1")
    record(engine, claimed(engine, item), verdict(), worker="w1")


def _failed_and_retried(engine: Engine) -> None:
    """Failed, retried and failed; the same and cancelled; the same and done."""
    for key in ("failed-twice", "failed-cancelled", "failed-done"):
        item = submitted(engine, key=key)
        try_later(
            engine, claimed(engine, item), HostUnavailable("503"), worker="w1", delay_s=0, timings_ms={}
        )
        fail(engine, claimed(engine, item), NotFound("404"), worker="w1", timings_ms={})
        retry_failed(engine, Selection(ids=(item,)))
        if key == "failed-twice":
            fail(engine, claimed(engine, item), NotFound("404"), worker="w1", timings_ms={})
        elif key == "failed-cancelled":
            cancel_queued(engine, Selection(ids=(item,)))
        else:
            record(engine, claimed(engine, item), verdict(), worker="w1")


def _lost_with_their_workers(engine: Engine) -> None:
    """One that runs again, and one that took too many workers down, also after a retry."""
    claimed(engine, submitted(engine, key="lost"), lease_s=-1)
    expire(engine, worker="sweeper", max_crashes=3)
    item = submitted(engine, key="poison")
    claimed(engine, item, lease_s=-1)
    expire(engine, worker="sweeper", max_crashes=1)
    retry_failed(engine, Selection(ids=(item,)))
    claimed(engine, item, lease_s=-1)
    expire(engine, worker="sweeper", max_crashes=5)
    claimed(engine, item, lease_s=-1)
    expire(engine, worker="sweeper", max_crashes=1)


def _reused(engine: Engine) -> None:
    first = claimed(engine, submitted(engine, key="first"))
    record(engine, first, verdict(), worker="w1")
    second = verdict().model_copy(update={"reused_from": first.id})
    record(engine, claimed(engine, submitted(engine, key="reused")), second, worker="w1")


def _judged_anew(engine: Engine) -> None:
    for number, more in enumerate(("", "categories: {O5: sensitive}\n")):
        add(engine, load_policy(_POLICY_FILE + more, source="p.yaml"), by="anna", reason=f"r{number}")
    record(
        engine, claimed(engine, submitted(engine, key="again", policy="city-news@1")), verdict(), worker="w1"
    )
    change = change_of(engine, "city-news", from_revision=1, to_revision=2)
    assert sum(page.queued for page in reassess(engine, change, Choice(), batch="anew")) == 1
    with engine.connect() as connection:
        (anew,) = connection.execute(text("SELECT id FROM assessment WHERE batch = 'anew'")).scalars()
    record(engine, claimed(engine, anew), verdict(), worker="w1")


def test_a_ledger_that_has_seen_all_kinds_of_work_shows_no_breach(worked: Engine) -> None:
    report = audit(worked)
    assert (report.findings, report.complete) == ([], True)
    rows = {part.part: part.rows for part in report.parts}
    with worked.connect() as connection:
        assert rows["assessments"] == connection.execute(text("SELECT count(*) FROM assessment")).scalar_one()
        assert rows["feed"] == connection.execute(text("SELECT count(*) FROM verdict")).scalar_one()


def test_an_empty_ledger_shows_none(ledger: Engine) -> None:
    report = audit(ledger)
    assert (report.findings, report.complete) == ([], True)


@pytest.mark.parametrize("rows", [2, 3, 7])
def test_slices_of_any_size_come_to_the_same(worked: Engine, ids: Ids, rows: int) -> None:
    plant(worked, "UPDATE assessment SET charged = charged + 1 WHERE id = :id", ids["done"])
    whole, sliced = audit(worked), audit(worked, rows=rows)
    assert sliced.findings == whole.findings != []
    assert {p.part: p.rows for p in sliced.parts} == {p.part: p.rows for p in whole.parts}


def plant(engine: Engine, statements: str, id_: UUID | None = None) -> None:
    """Write past all constraints; past triggers as well where a statement begins with !."""
    with transaction(engine) as connection:
        for constraint in ("lease_while_running", "rings_while_queued", "due_or_rung"):
            connection.execute(
                text(f"ALTER TABLE assessment DROP CONSTRAINT IF EXISTS assessment_{constraint}")
            )
        for statement in statements.split(";"):
            past = statement.strip().startswith("!")
            connection.execute(
                text(f"SET LOCAL session_replication_role = {'replica' if past else 'origin'}")
            )
            connection.execute(text(statement.strip().lstrip("!")), {"id": id_})


# What is breached: whose row, and how.
OF_ASSESSMENTS: dict[str, tuple[str, str]] = {
    "done without a verdict": ("done", "!DELETE FROM verdict WHERE assessment_id = :id"),
    "not done, with a verdict": (
        "done", "UPDATE assessment SET state = 'failed', error_code = 'x' WHERE id = :id"
    ),
    "queued, and nothing will ring it": (
        "queued", "UPDATE assessment SET ring_at = NULL, rung_at = NULL WHERE id = :id"
    ),
    "not queued, and to be rung": ("cancelled", "UPDATE assessment SET ring_at = now() WHERE id = :id"),
    "running without a lease": ("running", "UPDATE assessment SET lease_until = NULL WHERE id = :id"),
    "not running, with a lease": ("cancelled", "UPDATE assessment SET lease_until = now() WHERE id = :id"),
    "running, claimed by nobody": ("running", "UPDATE assessment SET worker = NULL WHERE id = :id"),
    "failed without a code": ("failed", "UPDATE assessment SET error_code = NULL WHERE id = :id"),
    "done, with the code of an error": ("done", "UPDATE assessment SET error_code = 'x' WHERE id = :id"),
    "ended without a time": ("cancelled", "UPDATE assessment SET ended_at = NULL WHERE id = :id"),
    "open, with the time of an end": ("queued", "UPDATE assessment SET ended_at = now() WHERE id = :id"),
    "under a revision of another policy, or of none": (
        "queued", "UPDATE assessment SET policy = 'other' WHERE id = :id"
    ),
    "attempts not numbered from 1 without a gap": (
        "retried", "!DELETE FROM attempt WHERE assessment_id = :id AND attempt = 2"
    ),
    "another number of attempts than its fence says": (
        "failed", "UPDATE assessment SET attempt = attempt + 1 WHERE id = :id"
    ),
    "done, and its last attempt was not": (
        "done", "!UPDATE attempt SET outcome = 'given_back' WHERE assessment_id = :id"
    ),
    "failed, and its last attempt had not failed it": (
        "failed", "!UPDATE attempt SET outcome = 'retried' WHERE assessment_id = :id"
    ),
    "an attempt was done, and it is not": (
        "failed", "!UPDATE attempt SET outcome = 'done' WHERE assessment_id = :id"
    ),
    "more than one attempt was done": (
        "retried", "!UPDATE attempt SET outcome = 'done' WHERE assessment_id = :id AND attempt = 1"
    ),
    "charged otherwise than its attempts say": (
        "retried", "UPDATE assessment SET charged = 1 WHERE id = :id"
    ),
    "crashes otherwise than its attempts say": (
        "retried", "UPDATE assessment SET crashes = 0 WHERE id = :id"
    ),
    "a verdict of an attempt that was not done": (
        "done", "!UPDATE verdict SET attempt = 9 WHERE assessment_id = :id"
    ),
    "a verdict under another revision": (
        "again", "!UPDATE verdict SET policy_revision_id = policy_revision_id + 1 WHERE assessment_id = :id"
    ),
    "reused from what has no verdict": (
        "done",
        "!UPDATE verdict SET reused_from = (SELECT id FROM assessment WHERE key = 'failed') WHERE assessment_id = :id",
    ),
    "a verdict without an assessment": ("done", "!DELETE FROM assessment WHERE id = :id"),
    "an attempt without an assessment": ("failed", "!DELETE FROM assessment WHERE id = :id"),
    "a verdict that the feed leaves out": (
        "done", "!UPDATE verdict SET policy_revision_id = 999 WHERE assessment_id = :id"
    ),
}  # fmt: skip


def test_each_kind_of_breach_is_planted_here() -> None:
    told = {**states.CONDITIONS, **attempts.CONDITIONS, **attempts.CHARGES, **verdicts.CONDITIONS}
    assert set(told) <= set(OF_ASSESSMENTS)


@pytest.mark.parametrize("what", OF_ASSESSMENTS)
def test_a_breach_of_an_assessment_is_found_and_named(worked: Engine, ids: Ids, what: str) -> None:
    whose, statements = OF_ASSESSMENTS[what]
    plant(worked, statements, ids[whose])
    found = {what_: ids_ for (_, what_), ids_ in kinds(audit(worked)).items()}
    assert found[what][0].startswith(str(ids[whose]))
    assert all(
        id_.startswith(str(ids[whose])) for ids_ in found.values() for id_ in ids_ if "batch" not in id_
    )


def test_a_verdict_of_an_epoch_that_has_not_begun_is_found(worked: Engine, ids: Ids) -> None:
    plant(worked, "!UPDATE verdict SET epoch = 9 WHERE assessment_id = :id", ids["done"])
    ((kind, named),) = kinds(audit(worked)).items()
    assert kind == (Check.FEED, "a verdict that the feed leaves out")
    assert named[0] == str(ids["done"])


def test_a_count_that_drifted_is_found_with_batch_tenant_and_state(worked: Engine) -> None:
    plant(
        worked,
        "INSERT INTO tally (batch, tenant, state, n) VALUES ('b', 't', 'done', 4), ('', '', 'queued', 1)",
    )
    plant(worked, "DELETE FROM tally_change WHERE batch = 'anew'")
    ((check, what),) = found = kinds(audit(worked))
    assert (check, what) == (Check.COUNTERS, "a count that is not that of its rows")
    assert found[check, what] == (
        "no batch, queued: counted as 4, there are 3",
        "batch anew, done: counted as 0, there are 1",
        "batch b, tenant t, done: counted as 5, there are 1",
    )


def test_places_ahead_of_the_feed_and_what_was_set_aside_without_a_verdict_are_found(
    worked: Engine, ids: Ids
) -> None:
    far = Cursor(1, 2**40, 0)
    consumers.add_consumer(worked, "trainer", EVERYTHING, far)
    made = webhooks.add_webhook(
        worked, "hook", "https://hooks.test/", secret=_SECRET, wanted=EVERYTHING, start=START
    )
    plant(
        worked,
        f"INSERT INTO webhook_set_aside (webhook_id, assessment_id, tries, error) VALUES ('{made.id}', :id, 3, '503')",
        ids["failed"],
    )
    found = kinds(audit(worked))
    assert found[Check.DELIVERIES, "a place that the feed has not come to"] == ("consumer trainer",)
    assert found[Check.DELIVERIES, "set aside, and there is no verdict"] == (
        f"{ids['failed']} (webhook hook)",
    )


@pytest.mark.parametrize(
    ("by", "what"),
    [(-1, "fewer verdicts were given out than exist"), (1, "more verdicts were given out than exist")],
)
def test_a_consumer_that_was_given_another_number_than_there_are_is_found(
    worked: Engine, by: int, what: str
) -> None:
    url = worked.url.render_as_string(hide_password=False)
    with Feed(consumer="trainer", database_url=url) as reading:
        count = sum(len(batch) for batch in reading.batches(follow=False))
    assert turn(worked) == []
    assert audit(worked).findings == []
    plant(worked, f"UPDATE consumer SET given = given + {by}")
    found = turn(worked) or []
    assert kinds(found) == kinds(audit(worked))
    ((kind, (named,)),) = kinds(found).items()
    assert kind == (Check.DELIVERIES, what)
    assert named.startswith("consumer trainer: ")
    assert count > 5


def test_the_first_ids_of_a_kind_are_named_and_all_are_counted(worked: Engine) -> None:
    plant(worked, "UPDATE assessment SET ended_at = NULL WHERE state IN ('done', 'failed', 'cancelled')")
    (found,) = audit(worked, ids=3, rows=4).findings
    with worked.connect() as connection:
        ended = connection.execute(text("SELECT id::text FROM assessment WHERE ended_at IS NULL AND state IN "
                                        "('done', 'failed', 'cancelled') ORDER BY id")).scalars().all()  # fmt: skip
    assert (found.count, list(found.ids)) == (len(ended), ended[:3])


@pytest.fixture
def boundary(own_postgres: LocalPostgres) -> Iterator[Engine]:
    """A ledger of 30 verdicts in as many transactions, on both sides of the transaction id 1,000."""
    engine = open_ledger(own_postgres.url)
    migrate.upgrade(engine)
    seed_builtin(engine)
    items = [claimed(engine) for _ in range(30)]
    with engine.connect() as connection:
        while int(connection.execute(text("SELECT pg_current_xact_id()::text")).scalar_one()) < 985:
            pass
    for item in items:
        record(engine, item, verdict(), worker="w1")
    yield engine
    engine.dispose()


# Faults of a reader, put into its statements: the first is that of release 0.1.0, which ordered ids as texts.
FAULTS = {
    "a verdict that the feed leaves out": ("_WINDOW", "ORDER BY w.xid DESC", "ORDER BY w.xid::text DESC"),
    "a verdict that the feed gives out of order, or twice": (
        "_READ", "ORDER BY f.xid, f.seq", "ORDER BY f.xid DESC, f.seq"
    ),
    "a verdict that the feed gives out at another place": ("_READ", "f.seq, ", "f.seq - 1 AS seq, "),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS)
def test_a_reader_at_fault_is_found(boundary: Engine, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    assert audit(boundary).findings == []
    statement, right, wrong = FAULTS[what]
    standing_ = getattr(feed, statement).text
    assert right in standing_
    monkeypatch.setattr(feed, statement, text(standing_.replace(right, wrong, 1)))
    found = kinds(audit(boundary))
    assert found[Check.FEED, what]


def test_a_filter_that_leaves_out_is_found(worked: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        feed, "_READ", text(feed._READ.text.replace("rating = :rating", "rating = lower(:rating)"))
    )
    random.seed(1)
    found: dict[tuple[Check, str], tuple[str, ...]] = {}
    for _ in range(20):  # filters are a sample
        found |= kinds(audit(worked))
    missed = found[Check.FEED, "a verdict that the feed leaves out"]
    assert all("(rating Safe)" in one for one in missed)


def test_verdicts_that_wait_for_an_open_transaction_are_no_breach(worked: Engine) -> None:
    with worked.execution_options(isolation_level="READ COMMITTED").connect() as open_:
        open_.execute(text("SELECT pg_current_xact_id()"))
        record(worked, claimed(worked), verdict(), worker="w1")
        assert feed.read(worked, START).unsettled
        assert audit(worked).findings == []


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
        end = time.monotonic() + 6
        audits = 0
        while time.monotonic() < end:
            assert audit(ledger, rows=random.choice([5, 50, 500])).findings == []
            audits += 1
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert audits > 3
    assert audit(ledger).complete


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


def turn(engine: Engine, **settings: float) -> list[Finding] | None:
    return take_turn(engine, AuditSettings(**({"every_s": 1e-6, "turn_s": 30} | settings)))  # type: ignore[arg-type]


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
        (Check.CHARGES, "charged otherwise than its attempts say"): (str(ids["done"]),)
    }
    assert standing(places(worked))["charges"] == 1
    plant(worked, "UPDATE assessment SET charged = charged - 1 WHERE id = :id", ids["done"])
    assert standing(places(worked))["charges"] == 1
    assert turn(worked) == []
    assert set(standing(places(worked)).values()) == {0}


def test_a_batch_too_large_for_a_turn_is_left_to_the_command(ledger: Engine) -> None:
    judge_many(ledger, 300)
    plant(ledger, "INSERT INTO tally (batch, tenant, state, n) VALUES ('many', '', 'done', 1)")
    assert turn(ledger, heavy_rows=200) == []
    assert [one.check for one in turn(ledger, heavy_rows=400) or ()] == [Check.COUNTERS]
    assert [one.check for one in audit(ledger).findings] == [Check.COUNTERS]


def test_the_command_says_what_it_found_and_exits_by_it(
    services_env: dict[str, str], worked: Engine, ids: Ids, tmp_path: Path
) -> None:
    well = run(tmp_path, "audit", env=services_env)
    assert (well.returncode, well.stderr) == (0, "")
    assert well.stdout.splitlines()[-1] == "no breach"
    plant(worked, "!UPDATE verdict SET policy_revision_id = 999 WHERE assessment_id = :id", ids["done"])
    ill = run(tmp_path, "audit", env=services_env)
    assert ill.returncode == 1
    assert "feed: a verdict that the feed leaves out: " in ill.stdout
    assert str(ids["done"]) in ill.stdout
    assert max(len(line) for line in ill.stdout.splitlines()) <= 80
    told = json.loads(run(tmp_path, "audit", "--full", "--json", env=services_env).stdout)
    assert told["complete"]
    assert {one["check"] for one in told["breaches"]} == {"feed", "verdicts"}
    assert run(tmp_path, "audit", "--since", "1h", env=services_env).returncode == 1
    assert run(tmp_path, "audit", "--since", "1h", "--full", env=services_env).returncode == 2


def test_the_command_says_that_postgres_is_away(tmp_path: Path) -> None:
    away = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none", "REDIS_URL": "redis://127.0.0.1:9/0"}
    assert run(tmp_path, "audit", env=away).returncode == 75
