"""`vetline feed` as a process: killed in the middle, piped into a head that leaves, and stopped."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from bench.feed import run as run_killed
from consumer.feed import Feed
from moderation.ledger.consumers import consumers
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from tests.support.recorded import record
from tests.support.waiting import wait_for


@pytest.fixture
def ledger(services_env: dict[str, str]) -> Iterator[Engine]:
    engine = open_ledger(services_env["DATABASE_URL"])
    seed_builtin(engine)
    yield engine
    engine.dispose()


@pytest.mark.timeout(300)  # starts six processes, one after the other
def test_a_consumer_killed_again_and_again_skips_nothing(postgres_url: str, tmp_path: Path) -> None:
    """The small run of `python -m bench.feed`."""
    outcome = run_killed(postgres_url, tmp_path, kills=5, verdicts=992, pace_s=5)
    assert outcome.holds, outcome
    assert outcome.kills == 5
    assert outcome.missed_by_the_plain_number > 0, "the writers did not commit out of order"


def test_lines_that_nobody_read_are_not_acknowledged(
    ledger: Engine, services_env: dict[str, str], tmp_path: Path
) -> None:
    with ledger.connect() as connection:
        record(connection, 2000)
    typed = f"{sys.executable} -P -m moderation.cli feed --consumer takedown"
    script = f"set -o pipefail; {typed} | head -n 1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    with Feed(consumer="takedown", database_url=services_env["DATABASE_URL"]) as feed:
        assert sum(len(batch) for batch in feed.batches(follow=False)) >= 1500


def test_following_waits_for_more_until_it_is_told_to_stop(ledger: Engine, tmp_path: Path) -> None:
    words = [sys.executable, "-P", "-m", "moderation.cli", "feed", "--follow", "--consumer", "takedown"]
    out = tmp_path / "lines"
    with out.open("wb") as file:
        following = subprocess.Popen(words, stdout=file, cwd=tmp_path)
    try:
        for number in range(3):
            with ledger.connect() as connection:
                record(connection, first=number)
            wait_for(lambda: out.read_bytes().count(b"\n") == number + 1)  # noqa: B023 - asked at once
        following.send_signal(signal.SIGTERM)
        assert following.wait(30) == 0
    finally:
        following.kill()
        following.wait()
    (standing,) = consumers(ledger)
    assert (standing["behind_s"], standing["read_by"]) == (None, None)
