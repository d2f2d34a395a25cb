"""Retention clears what is old and nothing else; holds keep what they name; the database itself lets nothing else by."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from moderation.cli.retention import commands
from moderation.errors import InvalidSubmission, NotFound
from moderation.ledger import queries
from moderation.ledger import reassess as reassessing
from moderation.ledger.export import ExportFilter, snapshot, totals
from moderation.ledger.legal_holds import HoldTarget, add_hold, holds, remove_hold
from moderation.ledger.outcomes import fail
from moderation.ledger.reassess import reassess, revision_change
from moderation.ledger.registry import add
from moderation.ledger.retention import MonthCount, clear_raw, clear_uris
from moderation.ledger.retry import retry_failed
from moderation.ledger.selection import Selection
from moderation.policy import load_policy
from moderation.verdict import Ask, Rung
from tests.support.ledger import attempts, claimed, record, row, submitted, verdict
from tests.support.many import judge_many

BEFORE = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def old(ledger: Engine) -> Engine:
    """2,000 verdicts of January in the batch "many", 500 of February in "late", 100 of April in "new"."""
    judge_many(ledger, 2000)
    judge_many(ledger, 500, batch="late", start="2026-02-10", first=2001)
    judge_many(ledger, 100, batch="new", start="2026-04-01", first=2501)
    return ledger


def cleared(counts: list[list[MonthCount]]) -> dict[tuple[str, str], int]:
    """By month and kind."""
    total: dict[tuple[str, str], int] = {}
    for count in (count for page in counts for count in page):
        key = f"{count.month:%Y-%m}", count.what.value
        total[key] = total.get(key, 0) + count.n
    return total


def digest(engine: Engine, *, but: tuple[str, ...] = ()) -> list[str]:
    """Every row of attempts and verdicts as text, without some columns."""
    with engine.connect() as connection:
        return [
            line
            for table in ("verdict", "attempt")
            for line in connection.execute(
                text(
                    f"SELECT (to_jsonb(t) - CAST(:but AS text[]))::text FROM {table} t ORDER BY assessment_id"
                ),
                {"but": list(but)},
            ).scalars()
        ]


def number(engine: Engine, query: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(query)).scalar_one())


def test_what_is_old_loses_raw_outputs_and_keeps_all_that_explains_it(old: Engine) -> None:
    kept = ("raw_output", "cleared_at", "asks")
    before = digest(old, but=kept)
    told = cleared(list(clear_raw(old, BEFORE, rows=700, dry_run=True)))
    assert digest(old, but=kept) == before
    assert number(old, "SELECT count(*) FROM verdict WHERE cleared_at IS NOT NULL") == 0, (
        "a dry run changes nothing"
    )
    done = cleared(list(clear_raw(old, BEFORE, rows=700)))
    assert (
        done
        == told
        == {
            ("2026-01", "verdicts"): 2000,
            ("2026-01", "attempts"): 2000,
            ("2026-02", "verdicts"): 500,
            ("2026-02", "attempts"): 500,
        }
    )
    assert digest(old, but=kept) == before
    assert number(old, "SELECT count(*) FROM verdict WHERE raw_output IS NOT NULL") == 100
    assert number(old, "SELECT count(*) FROM attempt WHERE asks @? '$[*].raw'") == 100
    assert number(old, "SELECT count(*) FROM attempt WHERE asks @? '$[*].rung'") == 2600
    assert cleared(list(clear_raw(old, BEFORE, rows=700))) == {}, "a second time finds nothing"


def test_an_interrupted_walk_has_done_its_pages_and_the_next_does_the_rest(old: Engine) -> None:
    pages = clear_raw(old, BEFORE, rows=300)
    first = [next(pages), next(pages)]
    pages.close()
    assert cleared(first)["2026-01", "verdicts"] == 600
    assert number(old, "SELECT count(*) FROM verdict WHERE cleared_at IS NOT NULL") == 600
    rest = cleared(list(clear_raw(old, BEFORE, rows=300)))
    assert rest["2026-01", "verdicts"] == 1400
    assert rest["2026-02", "verdicts"] == 500


def test_several_at_once_clear_each_row_once(old: Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        runs = list(
            pool.map(lambda rows: cleared(list(clear_uris(old, BEFORE, rows=rows))), (150, 300, 450, 600))
        )
    assert sum(run.get(("2026-01", "uris"), 0) for run in runs) == 2000


def test_uris_go_and_everybody_knows_that_they_are_gone(old: Engine) -> None:
    failed = claimed(old)
    fail(old, failed, NotFound("404"), worker="w1", timings_ms={})
    beyond = datetime.now(UTC) + timedelta(seconds=5)
    open_ = submitted(old)
    done = cleared(list(clear_uris(old, beyond, rows=1000)))
    assert sum(done.values()) == 2601
    assert row(old, failed.id)["uri"] == "https:…"
    assert row(old, open_)["uri"] == "https://images.test/1.jpg", "what is not ended may be fetched again"
    assert retry_failed(old, Selection()) == [], "there is nothing to fetch"
    assert number(old, "SELECT count(*) FROM assessment WHERE uri LIKE '%images.test%'") == 1
    with snapshot(old) as connection:
        assert totals(connection, ExportFilter())["safe"] == 2548


def test_a_batch_or_an_assessment_that_is_held_stays_as_it_is_until_the_hold_is_removed(old: Engine) -> None:
    with old.connect() as connection:
        one = connection.execute(text("SELECT id FROM assessment WHERE batch = 'late' LIMIT 1")).scalar_one()
    assert add_hold(old, HoldTarget(batch="many"), reason="case 7", by="anna")
    assert add_hold(old, HoldTarget(assessment_id=one), reason="case 8", by="ben")
    assert not add_hold(old, HoldTarget(batch="many"), reason="again", by="cleo")
    done = cleared(list(clear_raw(old, BEFORE, rows=700)))
    assert done == {
        ("2026-01", "held"): 2000,
        ("2026-02", "held"): 1,
        ("2026-02", "verdicts"): 499,
        ("2026-02", "attempts"): 499,
    }
    assert cleared(list(clear_uris(old, BEFORE, rows=700)))["2026-02", "uris"] == 499
    assert number(old, "SELECT count(*) FROM assessment WHERE batch = 'many' AND cleared_at IS NULL") == 2000
    assert remove_hold(old, HoldTarget(batch="many"), by="dora")
    assert not remove_hold(old, HoldTarget(batch="many"), by="dora")
    assert cleared(list(clear_raw(old, BEFORE, rows=700)))["2026-01", "verdicts"] == 2000
    assert [(hold.reason, hold.added_by) for hold in holds(old)] == [("case 8", "ben")]
    assert [(hold.batch, hold.removed_by) for hold in holds(old, removed=True)] == [
        ("many", "dora"),
        (None, None),
    ]
    assert add_hold(old, HoldTarget(batch="many"), reason="case 9", by="anna"), "it may be held again"


def test_a_hold_waits_for_the_page_in_hand_and_then_nothing_more_is_cleared(old: Engine) -> None:
    pages = clear_raw(old, BEFORE, rows=400)
    next(pages)
    assert add_hold(old, HoldTarget(batch="many"), reason="case 7", by="anna")
    rest = cleared(list(pages))
    assert rest[("2026-01", "held")] == 1600
    assert ("2026-01", "verdicts") not in rest


@pytest.mark.parametrize("held", [{}, {"batch": "b", "assessment_id": UUID(int=1)}])
def test_a_hold_is_about_one_thing(held: dict[str, object]) -> None:
    with pytest.raises(InvalidSubmission, match="one batch or one assessment"):
        HoldTarget(**held)  # type: ignore[arg-type]


def test_an_assessment_that_is_not_there_cannot_be_held(ledger: Engine) -> None:
    with pytest.raises(InvalidSubmission, match="no assessment"):
        add_hold(ledger, HoldTarget(assessment_id=UUID(int=1)), reason="r", by="anna")


VERDICT = "UPDATE verdict SET raw_output = NULL, cleared_at = now()"
ATTEMPT = "UPDATE attempt SET asks = vetline_without_raw(asks), cleared_at = now()"


@pytest.fixture
def judged(ledger: Engine) -> Engine:
    """One verdict with a raw output and two asks, and one of a classifier, which has neither."""
    asks = (
        Ask(rung=Rung.STRICT, raw="not JSON", problem="not_json", elapsed_ms=1.5),
        Ask(rung=Rung.RESEED, raw='{"rating": "Safe"}', sampling={"temperature": 1.0}),
    )
    record(ledger, claimed(ledger), verdict(raw_output="the answer", asks=asks, p_unsafe=0.5), worker="w1")
    record(ledger, claimed(ledger), verdict(rung=Rung.CLASSIFIER), worker="w1")
    return ledger


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM verdict",
        "DELETE FROM attempt",
        "UPDATE verdict SET cleared_at = now()",
        "UPDATE verdict SET raw_output = 'another', cleared_at = now()",
        "UPDATE verdict SET raw_output = NULL",
        "UPDATE verdict SET raw_output = NULL, cleared_at = now() - interval '1 year'",
        *(
            f"{VERDICT}, {change} WHERE raw_output IS NOT NULL"
            for change in (
                "rating = 'Unsafe'",
                "p_unsafe = 0.4",
                "rationale = ''",
                "bytes_sha256 = repeat('0', 64)",
                "pixels_sha256 = repeat('0', 64)",
                "recorded_at = now()",
                "xid = pg_current_xact_id()",
                "timings_ms = NULL",
                "sampling = '{\"seed\": 1}'",
                "reused_from = assessment_id",
            )
        ),
        f"{VERDICT} WHERE raw_output IS NULL",  # there was nothing, and nothing was cleared
        "UPDATE attempt SET asks = NULL, cleared_at = now()",
        "UPDATE attempt SET asks = '[]', cleared_at = now()",
        "UPDATE attempt SET asks = vetline_without_raw(asks)",
        f"{ATTEMPT}, outcome = 'failed' WHERE asks IS NOT NULL",
        f"{ATTEMPT}, worker = NULL WHERE asks IS NOT NULL",
        f"{ATTEMPT}, timings_ms = NULL WHERE asks IS NOT NULL",
        # By value nothing changes; by the letter it does.
        """UPDATE attempt SET cleared_at = now(),
           asks = replace(vetline_without_raw(asks)::text, '1.0', '1.00')::jsonb WHERE asks IS NOT NULL""",
    ],
)
def test_the_database_lets_by_the_clearing_and_nothing_else(judged: Engine, statement: str) -> None:
    before = digest(judged)
    with judged.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
        connection.execute(text(statement))
    assert digest(judged) == before


def test_the_clearing_itself_is_let_by_once(judged: Engine) -> None:
    for statement in (f"{VERDICT} WHERE raw_output IS NOT NULL", f"{ATTEMPT} WHERE asks IS NOT NULL"):
        with judged.connect() as connection:
            connection.execute(text(statement))
    (taken,) = (found for found in queries.verdicts(judged) if found["rung"] == "strict")
    (attempt,) = attempts(judged, taken["id"])
    assert [ask.get("raw", "gone") for ask in attempt["asks"]] == ["gone", "gone"]
    assert [ask["problem"] for ask in attempt["asks"]] == ["not_json", None]
    for statement in (
        "UPDATE verdict SET cleared_at = now()",
        "UPDATE verdict SET raw_output = 'x'",
        ATTEMPT,
    ):
        with judged.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
            connection.execute(text(statement))


def test_what_was_cleared_is_counted_where_it_was_to_be_judged_again(old: Engine) -> None:
    edited = "policy: llavaguard-default\nrevision: 2\ntitle: Edited\ncategories: {O4: sensitive}\n"
    add(old, load_policy(edited, source="edited.yaml"), by="anna", reason="trial")
    list(clear_uris(old, BEFORE, rows=1000))
    change = revision_change(old, "llavaguard-default", from_revision=1, to_revision=2)
    again = list(reassess(old, change, reassessing.ReassessFilter(), batch="again"))
    assert (sum(page.gone for page in again), sum(page.queued for page in again)) == (2500, 100)


@pytest.mark.usefixtures("services_env")
def test_the_commands_count_by_month_hold_and_tell(ledger: Engine) -> None:
    judge_many(ledger, 50)

    def vetline(*words: str) -> str:
        ended = CliRunner().invoke(commands, words)
        assert ended.exit_code == 0, ended.output
        return ended.stdout

    everything = ("--raw-days", "1", "--uri-days", "1")
    held = ("hold", "add", "--batch", "many", "--reason", "case 7", "--by", "anna", "--json")
    assert [json.loads(vetline(*held)) for _ in range(2)] == [{"added": True}, {"added": False}]
    assert "case 7" in vetline("hold", "list")
    told = json.loads(vetline("retention", "--dry-run", *everything, "--json"))
    assert told["dry_run"]
    assert told["months"] == [{"month": "2026-01", "verdicts": 0, "attempts": 0, "uris": 0, "held": 50}]
    vetline("hold", "remove", "--batch", "many", "--by", "ben")
    assert "ben" in vetline("hold", "list", "--all")
    assert vetline("retention", *everything).splitlines()[1].split() == ["2026-01", "50", "50", "50", "0"]
    assert json.loads(vetline("retention", *everything, "--json"))["months"] == []
