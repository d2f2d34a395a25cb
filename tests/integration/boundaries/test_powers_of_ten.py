"""Two ledgers that lost verdicts where the window of the feed crossed a power of ten, built anew."""

from collections.abc import Callable

from sqlalchemy import text

from consumer.feed import Feed, FeedSettings
from moderation.ledger import consumers
from moderation.ledger.engine import transaction
from tests.integration.boundaries.conftest import Cluster
from tests.support.crossing import burn
from tests.support.given_out import compare, recorded_in
from tests.support.recorded import record

SETTINGS = FeedSettings()  # as they come


def given(cluster: Cluster, **options: str) -> list[str]:
    with Feed(database_url=cluster.url, settings=SETTINGS, **options) as feed:
        return [str(verdict.assessment_id) for batch in feed.batches(follow=False) for verdict in batch]


def wanted(cluster: Cluster, **words: str) -> list[str]:
    return [row.id for row in recorded_in(cluster.ledger) if row.passes(words)]


def test_eighty_verdicts_in_eight_batches_across_10_000(starting_at: Callable[[int], Cluster]) -> None:
    """Ids 9,966 to 10,187; once `vetline feed` gave 13 of the 80, and the eight batches together 13."""
    cluster = starting_at(9_966)
    for number in range(80):
        with transaction(cluster.ledger) as connection:
            record(connection, first=number, batch=f"batch-{number // 10}")
        burn(cluster.ledger, 1 + number % 3)
    xids = [row.place[1] for row in recorded_in(cluster.ledger)]
    assert (min(xids), max(xids)) <= (9_970, 10_200)
    assert max(xids) > 10_100
    assert compare(wanted(cluster), given(cluster)).exact
    by_batch = [id_ for n in range(8) for id_ in given(cluster, batch=f"batch-{n}")]
    found = compare(wanted(cluster), by_batch)
    assert found.exact, found
    assert found.given == 80


def test_thousands_of_verdicts_across_1_000(starting_at: Callable[[int], Cluster]) -> None:
    """Ids 797 to some 3,650; once `--unsafe` gave 33 of 390, `--policy strict` none, a consumer was moved past 99."""
    cluster = starting_at(797)
    with cluster.ledger.connect() as connection:
        for number in range(2_800):
            rating = "Unsafe" if number % 7 == 0 else "Safe"
            policy = "strict" if number % 18 == 0 else "llavaguard-default"
            record(connection, 2, first=2 * number, rating=rating, policy=policy)
    xids = [row.place[1] for row in recorded_in(cluster.ledger)]
    assert min(xids) < 1_000
    assert max(xids) > 3_500
    assert len(xids) == 5_600
    for words in ({}, {"rating": "Unsafe"}, {"policy": "strict"}, {"policy": "strict@1", "rating": "Safe"}):
        found = compare(wanted(cluster, **words), given(cluster, **words))
        assert found.exact, f"{words}: {found}"
        named = compare(wanted(cluster, **words), given(cluster, consumer=f"c {words}", **words))
        assert named.exact, f"consumer of {words}: {named}"
    assert {row["behind_s"] for row in consumers.consumers(cluster.ledger)} == {None}


def test_the_next_ids_are_as_asked_for(starting_at: Callable[[int], Cluster]) -> None:
    for asked in (995, 2**31 - 5, 2**32 - 5, 2**63 - 5):
        cluster = starting_at(asked)
        with cluster.ledger.connect() as connection:
            first = connection.execute(text("SELECT pg_current_xact_id()::text")).scalar_one()
            kept = connection.execute(text("SELECT system_identifier FROM feed_epoch")).scalar_one()
            now = connection.execute(text("SELECT system_identifier FROM pg_control_system()")).scalar_one()
        assert int(first) == asked
        assert kept == now, "else every reader would refuse it as restored elsewhere"
