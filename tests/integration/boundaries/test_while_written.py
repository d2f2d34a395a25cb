"""Readers that follow while a boundary of transaction ids is crossed: behind slow writers, through kills and restarts."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from consumer.feed import Feed, FeedSettings
from moderation.ledger import consumers
from moderation.ledger.engine import transaction
from tests.integration.boundaries.conftest import Cluster
from tests.support.crossing import burn, write_across
from tests.support.given_out import compare, recorded_in
from tests.support.recorded import record
from tests.support.transaction_ids import go_on_at
from tests.support.waiting import wait_for

QUICK = FeedSettings(batch_size=7, poll_s=0.1, lease_s=1)
SHARERS = 3


def in_table(cluster: Cluster) -> list[str]:
    return [row.id for row in recorded_in(cluster.ledger)]


def ids_of(batch: object) -> list[str]:
    return [str(verdict.assessment_id) for verdict in batch]  # type: ignore[attr-defined]


@pytest.mark.parametrize("start", [995, 9_995, 2**31 - 5, 2**32 - 5, 10**10 - 5])
def test_what_waits_for_a_long_transaction_comes_behind_it(
    starting_at: Callable[[int], Cluster], start: int
) -> None:
    """The open transaction's id lies below the boundary, and all that is committed meanwhile above it."""
    cluster = starting_at(start)
    with Feed(consumer="c", database_url=cluster.url, settings=QUICK) as feed:
        with transaction(cluster.ledger) as slow:
            record(slow, 2)
            burn(cluster.ledger, 10)
            with cluster.ledger.connect() as connection:
                for number in range(20):
                    record(connection, first=2 + number)
            assert feed.next_batch() == []
            assert feed.next_batch() == []
        given = []
        while batch := feed.next_batch():
            given += ids_of(batch)
            feed.acknowledge()
    xids = [row.place[1] for row in recorded_in(cluster.ledger)]
    assert min(xids) < start + 5 < max(xids)
    assert compare(in_table(cluster), given).exact
    assert len(given) == 22


def test_a_consumer_follows_through_restarts_and_jumps_of_the_next_id(
    starting_at: Callable[[int], Cluster],
) -> None:
    """From boundary to boundary, with the place kept in Postgres; nothing that was acknowledged comes again."""
    cluster = starting_at(995)
    given: list[str] = []
    for number, ahead in enumerate((9_995, 2**31 - 5, 2**32 - 5, 10**10 - 5, 2**63 - 5)):
        write_across(cluster.url, transactions=20, seed=number)
        with Feed(consumer="c", database_url=cluster.url, settings=QUICK) as feed:
            given += ids_of(feed.next_batch())
            feed.acknowledge()
            cluster.ledger.dispose()
            cluster.server.restart("immediate")
            table = in_table(cluster)
            for batch in feed.batches():  # waits until Postgres is back
                given += ids_of(batch)
                feed.acknowledge()
                if len(given) >= len(table):
                    break
        assert compare(table, given).exact
        cluster.ledger.dispose()
        go_on_at(cluster.server, cluster.folder, ahead)
    write_across(cluster.url, transactions=20, seed=99)
    with Feed(consumer="c", database_url=cluster.url, settings=QUICK) as feed:
        given += [id_ for batch in feed.batches(follow=False) for id_ in ids_of(batch)]
    found = compare(in_table(cluster), given)
    assert found.exact, found
    assert found.given > 100


@pytest.mark.parametrize("start", [9_995, 2**32 - 5])
def test_processes_that_share_a_name_and_are_killed_are_given_all_between_them(
    starting_at: Callable[[int], Cluster], start: int, tmp_path: Path
) -> None:
    cluster = starting_at(start)
    env = os.environ | {
        "DATABASE_URL": cluster.url,
        "VETLINE_FEED_BATCH_SIZE": "7",
        "VETLINE_FEED_LEASE_S": "1",
        "VETLINE_FEED_POLL_S": "0.1",
    }
    files = [tmp_path / f"{number}.jsonl" for number in range(SHARERS + 1)]

    def sharer(file: Path) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "moderation.cli", "feed", "--consumer", "shared", "--follow"]
        with file.open("wb") as out:
            return subprocess.Popen(words, env=env, stdout=out, start_new_session=True)

    sharers = [sharer(file) for file in files[:SHARERS]]
    try:
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write_across, cluster.url, transactions=60)
            wait_for(lambda: any(file.stat().st_size for file in files[:SHARERS]), what="a first line")
            reading = next(n for n, file in enumerate(files[:SHARERS]) if file.stat().st_size)
            sharers[reading].send_signal(signal.SIGKILL)
            sharers.append(sharer(files[SHARERS]))
            writing.result(60)
        wait_for(lambda: compare(in_table(cluster), _lines(files)).missing == 0, what="all of them")
        wait_for(lambda: consumers.consumers(cluster.ledger)[0]["behind_s"] is None, what="acknowledgement")
    finally:
        for process in sharers:
            process.kill()
            process.wait()
    found = compare(in_table(cluster), _lines(files))
    assert (found.missing, found.unknown) == (0, 0)
    assert found.repeated <= 7, "at most the batch that the killed one did not acknowledge"
    for file in files:
        assert compare(in_table(cluster), _lines([file])).out_of_order == 0


def _lines(files: list[Path]) -> list[str]:
    """The ids in whole lines; a kill may leave half a line."""
    found = []
    for file in files:
        if file.exists():
            whole = file.read_bytes().rpartition(b"\n")[0]
            found += [json.loads(line)["assessment_id"] for line in whole.splitlines()]
    return found
