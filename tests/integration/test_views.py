"""The views for those who query directly: their columns are kept, and they say what they are said to."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from consumer.feed import Feed
from moderation.cursor import START
from moderation.errors import NotFound
from moderation.ledger.consumers import consumers
from moderation.ledger.engine import open_ledger
from moderation.ledger.feed import read
from moderation.ledger.outcomes import fail
from moderation.published import COLUMNS
from tests.support.ledger import claimed, submitted
from tests.support.recorded import record

_KEPT = Path(__file__).with_name("view_columns.json")
_DOCUMENT = Path(__file__).parents[2] / "docs" / "consumers.md"
_COLUMNS = text("""
    SELECT attname AS name, format_type(atttypid, atttypmod) AS type
    FROM pg_attribute WHERE attrelid = CAST(:view AS regclass) AND attnum > 0 ORDER BY attnum
""")


def rows(ledger: Engine, query: str) -> list[dict[str, Any]]:
    with ledger.connect() as connection:
        return [dict(row) for row in connection.execute(text(query)).mappings()]


def test_columns_of_a_release_stay_in_every_later_one(ledger: Engine) -> None:
    """The file is what consumers rely on. A column may be added to its end, in the file too; none may change."""
    kept: dict[str, list[list[str]]] = json.loads(_KEPT.read_text())
    for view, columns in kept.items():
        with ledger.connect() as connection:
            found = [[row.name, row.type] for row in connection.execute(_COLUMNS, {"view": view})]
        assert found == columns, f"{view} is {json.dumps(found)}"
    assert [name for name, _ in kept["verdict_history"]][: len(COLUMNS)] == list(COLUMNS)


def test_every_image_without_a_verdict_is_unassessed_and_none_with_one(ledger: Engine) -> None:
    with ledger.connect() as connection:
        record(connection, 3)
    queued = submitted(ledger)
    running = claimed(ledger)
    broken = claimed(ledger)
    fail(ledger, broken, NotFound("the host answered 404"), worker="w1", timings_ms={})
    found = {row["assessment_id"]: row["state"] for row in rows(ledger, "SELECT * FROM unassessed")}
    assert found == {queued: "queued", running.id: "running", broken.id: "failed"}
    (failure,) = rows(ledger, "SELECT * FROM failure_current")
    assert (failure["assessment_id"], failure["error_code"]) == (broken.id, "not_found")
    both = "SELECT assessment_id FROM unassessed UNION ALL SELECT assessment_id FROM verdict_history"
    assert len(rows(ledger, both)) == rows(ledger, "SELECT count(*) AS n FROM assessment")[0]["n"]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://user:pass@images.test/a.jpg?X-Amz-Signature=abc#part", "https://images.test/a.jpg"),
        ("https://images.test/eyJhbGciOiJIUzI1NiIsInR5cCI6IkpX/a.jpg", "https://images.test/…/a.jpg"),
        (f"https://images.test/{'0a' * 32}.jpg", f"https://images.test/{'0a' * 32}.jpg"),
        ("s3://bucket/folder/key.jpg?versionId=abc", "s3://bucket/folder/key.jpg"),
        ("data:image/png;base64,iVBORw0KGgo=", "data:…"),
        ("file:///srv/images/a%20photograph.jpg", "file:///srv/images/a%20photograph.jpg"),
    ],
)
def test_a_uri_that_may_still_be_fetched_is_shown_without_its_secrets(
    ledger: Engine, uri: str, shown: str
) -> None:
    submitted(ledger, uri)
    assert rows(ledger, "SELECT uri FROM unassessed") == [{"uri": shown}]


def test_the_last_verdict_stands_for_an_image_that_was_judged_again(ledger: Engine) -> None:
    with ledger.connect() as connection:
        first, untouched = record(connection, 2)
        again = record(connection, 2, first=2)
        other = record(connection, 1, first=4)
        judged_again = text("UPDATE assessment SET reassesses = :old WHERE id = ANY(:new)")
        connection.execute(judged_again, {"old": first, "new": list(again)})
        connection.execute(judged_again, {"old": again[1], "new": list(other)})
    standing = {row["assessment_id"] for row in rows(ledger, "SELECT assessment_id FROM verdict_current")}
    assert standing == {untouched, other[0]}
    assert len(rows(ledger, "SELECT * FROM verdict_history")) == 5


def test_a_reassessment_that_is_not_done_leaves_the_verdict_standing(ledger: Engine) -> None:
    with ledger.connect() as connection:
        (first,) = record(connection, 1)
        connection.execute(
            text("UPDATE assessment SET reassesses = :old WHERE id = :new"),
            {"old": first, "new": submitted(ledger)},
        )
    assert [row["assessment_id"] for row in rows(ledger, "SELECT * FROM verdict_current")] == [first]
    assert [row["reassesses"] for row in rows(ledger, "SELECT * FROM unassessed")] == [first]


def test_a_place_is_found_by_the_index_however_long_the_ledger_is(ledger: Engine) -> None:
    with ledger.connect() as connection:
        record(connection, 5000)
        connection.execute(text("ANALYZE"))
        page = read(ledger, read(ledger, read(ledger, START).upto).upto)
        assert len(page.verdicts) == 500
        plan = connection.execute(
            text(
                "EXPLAIN SELECT * FROM feed WHERE epoch = 1 AND (xid, seq) > ('0'::xid8, 4000) ORDER BY xid, seq LIMIT 10"
            )
        ).scalars()
        shown = "\n".join(plan)
    assert "verdict_feed" in shown, shown
    assert "Sort" not in shown, shown


@pytest.fixture
def curator(ledger: Engine) -> Iterator[Engine]:
    """A role with the grants of docs/consumers.md, as they stand there, and nothing else."""
    (grants,) = re.findall(r"```sql\n(.*?)```", _DOCUMENT.read_text(), flags=re.DOTALL)
    role = f"curator_{ledger.url.database}"  # roles are the cluster's
    with ledger.connect() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD 'test'"))
        connection.execute(text(grants.replace("curator", role)))
    engine = open_ledger(ledger.url.set(username=role, password="test").render_as_string(hide_password=False))
    yield engine
    engine.dispose()
    with ledger.connect() as connection:
        connection.execute(text(f"DROP OWNED BY {role}"))
        connection.execute(text(f"DROP ROLE {role}"))


def test_the_documented_grants_are_enough_for_the_feed_and_show_no_secret(
    ledger: Engine, curator: Engine
) -> None:
    with ledger.connect() as connection:
        record(connection, 3)
    with Feed(consumer="c", database_url=curator.url.render_as_string(hide_password=False)) as feed:
        assert [len(batch) for batch in feed.batches(follow=False)] == [3]
    assert [row["behind_s"] for row in consumers(curator)] == [None]
    assert rows(curator, "SELECT * FROM unassessed") == []
    for hidden in ("webhook_secret", "webhook", "attempt", "assessment"):
        with pytest.raises(DBAPIError, match="permission denied"):
            rows(curator, f"SELECT * FROM {hidden}")
    with pytest.raises(DBAPIError, match="permission denied"):
        rows(curator, "SELECT raw_output FROM verdict")
