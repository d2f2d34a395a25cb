"""The audit finds a planted breach of each kind and names it, and finds none where all is well."""

import random
from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from consumer.feed import Feed
from moderation.cursor import START, Cursor
from moderation.ledger import consumers, feed, migrate, webhooks
from moderation.ledger.audit import attempts, states, verdicts
from moderation.ledger.audit.finding import AuditCheck
from moderation.ledger.audit.run import audit
from moderation.ledger.engine import open_ledger
from moderation.ledger.feed import EVERYTHING
from moderation.ledger.policies import seed_builtin
from moderation.services.postgres import LocalPostgres
from tests.support.ledger import claimed, record, verdict
from tests.support.worked import kinds, plant, turn

Ids = dict[str, UUID]
_SECRET = "whsec_x"


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
        "queued", "!UPDATE assessment SET policy = 'other' WHERE id = :id"
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
    assert kind == (AuditCheck.FEED, "a verdict that the feed leaves out")
    assert named[0] == str(ids["done"])


def test_a_count_that_drifted_is_found_with_batch_tenant_and_state(worked: Engine) -> None:
    plant(
        worked,
        "INSERT INTO tally (batch, tenant, state, n) VALUES ('b', 't', 'done', 4), ('', '', 'queued', 1)",
    )
    plant(worked, "DELETE FROM tally_change WHERE batch = 'anew'")
    ((check, what),) = found = kinds(audit(worked))
    assert (check, what) == (AuditCheck.COUNTERS, "a count that is not that of its rows")
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
    assert found[AuditCheck.DELIVERIES, "a place that the feed has not come to"] == ("consumer trainer",)
    assert found[AuditCheck.DELIVERIES, "set aside, and there is no verdict"] == (
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
    assert kind == (AuditCheck.DELIVERIES, what)
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


# Faults of a reader, put into its statements: the first is that of release 0.1.0, which ordered ids as texts; the second
# reader says that it is done though it is not.
FAULTS = [
    ("a verdict that the feed leaves out", "_WINDOW", "ORDER BY w.xid DESC", "ORDER BY w.xid::text DESC"),
    ("a verdict that the feed leaves out", "_WINDOW", "v.seq LIMIT :look_at", "v.seq LIMIT 0 * :look_at"),
    (
        "a verdict that the feed gives out of order, or twice",
        "_READ",
        "BY f.xid, f.seq",
        "BY f.xid DESC, f.seq",
    ),
    ("a verdict that the feed gives out at another place", "_READ", "f.seq, ", "f.seq - 1 AS seq, "),
]


@pytest.mark.parametrize(("what", "statement", "right", "wrong"), FAULTS)
def test_a_reader_at_fault_is_found(
    boundary: Engine, monkeypatch: pytest.MonkeyPatch, what: str, statement: str, right: str, wrong: str
) -> None:
    assert audit(boundary).findings == []
    sound = getattr(feed, statement).text
    assert right in sound
    monkeypatch.setattr(feed, statement, text(sound.replace(right, wrong, 1)))
    assert kinds(audit(boundary))[AuditCheck.FEED, what]


def test_a_filter_that_leaves_out_is_found(worked: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        feed, "_READ", text(feed._READ.text.replace("rating = :rating", "rating = lower(:rating)"))
    )
    random.seed(1)
    found: dict[tuple[AuditCheck, str], tuple[str, ...]] = {}
    for _ in range(20):  # filters are a sample
        found |= kinds(audit(worked))
    missed = found[AuditCheck.FEED, "a verdict that the feed leaves out"]
    assert all("(rating Safe)" in one for one in missed)


def test_verdicts_that_wait_for_an_open_transaction_are_no_breach(worked: Engine) -> None:
    with worked.execution_options(isolation_level="READ COMMITTED").connect() as open_:
        open_.execute(text("SELECT pg_current_xact_id()"))
        record(worked, claimed(worked), verdict(), worker="w1")
        assert feed.read(worked, START).unsettled
        assert audit(worked).findings == []
