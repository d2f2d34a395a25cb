"""No statement orders, groups or compares by something else than it says; read with Postgres' own parser."""

from collections.abc import Callable, Iterable
from importlib import import_module

import pytest

from moderation.ledger import (
    consumer_tables,
    evaluation_tables,
    export,
    failures,
    operation_tables,
    outcomes,
    retention,
    roles,
    tables,
    verification,
)
from moderation.ledger.failures import FailureGroup
from tests.support.sql_order import Columns, complaints
from tests.support.sql_statements import (
    migration_statements,
    module_statements,
    parsed,
    statements_in_functions,
)

# The import of each module fills the metadata.
_TABLES: Columns = {
    table.name: frozenset(table.columns.keys())
    for module in (consumer_tables, evaluation_tables, operation_tables, tables)
    for table in module.SQLModel.metadata.tables.values()
}
_ALLOWED = {
    # A digest is drawn by lot, and a text is what it is made of.
    "moderation.ledger.reassess._SAMPLE": "ORDER BY of a cast to text",
}
_GROUPINGS = [list(FailureGroup), *([one] for one in FailureGroup)]

# Each statement that is put together in a function, by an example of it.
_BUILT: dict[str, Callable[[], Iterable[str]]] = {
    "moderation.ledger.outcomes._ended": lambda: [str(outcomes._FAIL), str(outcomes._CRASHED)],
    "moderation.ledger.engine.transaction": lambda: ["SET LOCAL statement_timeout = 1000"],
    "moderation.ledger.export.verdict_pages": lambda: [_exported(export._VERDICTS + " LIMIT :limit")],
    "moderation.ledger.export._counted": lambda: [
        _exported(export._TOTALS),
        _exported(export._CATEGORIES),
        *(_exported(export._GROUPS.replace("{group}", group)) for group in export._GROUP.values()),
    ],
    "moderation.ledger.failures._grouped": lambda: [str(failures._grouped(by)) for by in _GROUPINGS],
    "moderation.ledger.feed.adopt": lambda: ["ALTER TABLE verdict ALTER COLUMN epoch SET DEFAULT 2"],
    "moderation.ledger.retention._walk": lambda: [str(retention._CLEAR_RAW), str(retention._TELL_URIS)],
    "moderation.ledger.roles.grant": lambda: roles._statements(set(), "public"),
    "moderation.ledger.verification._text": lambda: _of_places(),
    "moderation.ledger.verification.count_passing": lambda: [
        verification._COUNT.format(rows=rows) for rows in _ROWS
    ],
    "moderation.ledger.migrations.versions.0012_places_put_back.upgrade": lambda: [
        statement.format(table="consumer") for statement in (_0012.PUT_BACK, _0012.VERIFIED)
    ],
}
_ROWS = (verification._ROWS, verification._PASSING)
_0012 = import_module("moderation.ledger.migrations.versions.0012_places_put_back")

# As it stood when the feed skipped verdicts.
_SKIPPED_VERDICTS = """
    WITH looked_at AS MATERIALIZED (
        SELECT v.xid, v.seq FROM verdict v WHERE (v.xid, v.seq) > (CAST(:xid AS xid8), :seq)
        ORDER BY v.xid, v.seq LIMIT :look_at
    )
    SELECT (SELECT count(*) FROM looked_at) AS n,
           (SELECT xid::text FROM looked_at ORDER BY xid DESC LIMIT 1) AS last_xid,
           (SELECT seq FROM looked_at ORDER BY xid DESC, seq DESC LIMIT 1) AS last_seq
"""


def _of_places() -> list[str]:
    """What `verification` asks of consumers and webhooks."""
    plain = ("_NAMES", "_FILTER", "_PLACE", "_CHECKPOINT", "_PUT_BACK", "_GO_BACK")
    whole = [getattr(verification, name).format(kind="webhook") for name in plain]
    return whole + [verification._EXAMINE.format(kind="consumer", rows=rows) for rows in _ROWS]


def test_statements_of_the_ledger_order_by_what_they_say() -> None:
    statements = list(module_statements())
    assert len(statements) > 100
    assert not _all_complaints(statements)


def test_views_functions_and_statements_of_migrations_do_too() -> None:
    statements = list(migration_statements())
    assert sum("CREATE VIEW" in words for _, words in statements) >= 2
    assert any("min(since)" in words for name, words in statements if "0009" in name)
    assert not _all_complaints(statements)


def test_statements_that_functions_put_together_do_too() -> None:
    found = list(statements_in_functions())
    whole = [(name, parsed(words)) for name, words in found if words is not None]
    built = {name for name, words in found if words is None}
    assert built == _BUILT.keys(), "a statement is put together in a function: give an example of it here"
    examples = [(name, parsed(words)) for name, make in _BUILT.items() for words in make()]
    assert not _all_complaints([*whole, *examples])


def test_the_statement_that_skipped_verdicts_is_refused() -> None:
    assert complaints(parsed(_SKIPPED_VERDICTS), _TABLES) == [
        "a row of looked_at is taken apart: several subqueries with ORDER BY and LIMIT pick for themselves",
        "ORDER BY xid: an output column of that name hides the column",
    ]


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("SELECT v.xid::text FROM verdict v ORDER BY xid", "ORDER BY xid"),
        ("SELECT seq AS xid FROM verdict ORDER BY xid", "ORDER BY xid"),
        ("SELECT xid::text FROM verdict UNION SELECT xid::text FROM webhook ORDER BY xid", "ORDER BY xid"),
        ("SELECT lower(batch) AS batch, count(*) FROM assessment GROUP BY batch", "GROUP BY batch"),
        ("SELECT DISTINCT ON (xid) xid::text FROM verdict ORDER BY verdict.xid", "DISTINCT ON xid"),
        ("SELECT seq FROM verdict v ORDER BY v.xid::text", "ORDER BY of a cast to text"),
        ("SELECT max(xid::text) FROM verdict", "max of a cast to text"),
        ("SELECT greatest(v.xid::text, :xid) FROM verdict v", "greatest or least of a cast"),
        ("SELECT seq FROM verdict WHERE xid::text > :xid", "a comparison of a cast to text"),
        ("SELECT seq FROM verdict WHERE (epoch, xid::text) <= (:epoch, :xid)", "a comparison of a cast"),
        ("SELECT seq FROM verdict WHERE xid::text BETWEEN :low AND :high", "a comparison of a cast"),
        ("WITH w AS (SELECT xid::text FROM verdict) SELECT w.xid FROM w ORDER BY w.xid", "a subquery cast"),
        ("SELECT max(w.at) FROM (SELECT recorded_at::text AS at FROM verdict) w", "a subquery cast"),
    ],
)
def test_what_hides_a_column_or_orders_a_text_is_refused(statement: str, complaint: str) -> None:
    found = complaints(parsed(statement), _TABLES)
    assert any(line.startswith(complaint) or complaint in line for line in found), found


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT v.xid::text AS place_xid FROM verdict v ORDER BY v.xid, v.seq",
        "SELECT policy, count(*) AS n FROM assessment GROUP BY policy ORDER BY n DESC, policy",
        "SELECT batch FROM assessment WHERE batch < CAST(:batch AS text) ORDER BY batch",
        "SELECT seq FROM verdict WHERE assessment_id::text = :id",
        "SELECT (SELECT seq FROM verdict ORDER BY xid LIMIT 1), (SELECT count(*) FROM verdict)",
    ],
)
def test_what_says_what_it_orders_by_is_not_refused(statement: str) -> None:
    assert complaints(parsed(statement), _TABLES) == []


def _all_complaints(statements: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found = {name: complaints(words, _TABLES) for name, words in statements}
    return {name: lines for name, lines in found.items() if lines and lines != [_ALLOWED.get(name)]}


def _exported(template: str) -> str:
    conditions = [*export._OF_ASSESSMENT.values(), *export._OF_VERDICT.values(), *export._OF_EITHER.values()]
    return template.format(where=" AND ".join(conditions))
