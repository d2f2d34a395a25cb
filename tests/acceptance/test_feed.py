"""`vetline feed` as a process: killed in the middle, piped into a head that leaves, stopped, and driven by commands."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine

from bench.feed import run as run_killed
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from tests.support.commands import run
from tests.support.recorded import record
from tests.support.waiting import wait_for


@pytest.fixture
def ledger(services_env: dict[str, str]) -> Engine:
    engine = open_ledger(services_env["DATABASE_URL"])
    seed_builtin(engine)
    return engine


def test_a_consumer_killed_again_and_again_skips_nothing(postgres_url: str, tmp_path: Path) -> None:
    """The small run of `python -m bench.feed`."""
    outcome = run_killed(postgres_url, tmp_path, kills=5, verdicts=992, pace_s=8)
    assert outcome.holds, outcome
    assert outcome.kills == 5
    assert outcome.missed_by_the_plain_number > 0, "the writers did not commit out of order"


def test_the_command_writes_lines_keeps_its_place_and_names_what_is_wrong(
    ledger: Engine, tmp_path: Path
) -> None:
    with ledger.connect() as connection:
        record(connection, 30)
        record(connection, 3, first=30, rating="Unsafe")
    lines = [json.loads(line) for line in run(tmp_path, "feed", "--json").stdout.splitlines()]
    assert [line["key"] for line in lines] == [f"k{n}" for n in range(33)]
    behind = run(tmp_path, "feed", "--after", lines[30]["cursor"]).stdout.splitlines()
    assert [json.loads(line)["key"] for line in behind] == ["k31", "k32"]
    unsafe = run(tmp_path, "feed", "--unsafe", "--consumer", "takedown")
    assert (unsafe.returncode, len(unsafe.stdout.splitlines())) == (0, 3)
    assert run(tmp_path, "feed", "--unsafe", "--consumer", "takedown").stdout == ""
    wrong = run(tmp_path, "feed", "--consumer", "takedown")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "rating=Unsafe" in wrong.stderr
    assert run(tmp_path, "feed", "--after", "nonsense").returncode == 2
    assert run(tmp_path, "consumer", "move", "takedown", "--after", "start").returncode == 0
    assert "takedown" in run(tmp_path, "consumer", "list").stdout
    assert len(run(tmp_path, "feed", "--unsafe", "--consumer", "takedown").stdout.splitlines()) == 3


def test_lines_that_nobody_read_are_not_acknowledged(ledger: Engine, tmp_path: Path) -> None:
    with ledger.connect() as connection:
        record(connection, 2000)
    feed = f"{sys.executable} -P -m moderation.cli feed --consumer takedown"
    script = f"set -o pipefail; {feed} | head -n 1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert len(run(tmp_path, "feed", "--consumer", "takedown").stdout.splitlines()) >= 1500


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
    assert run(tmp_path, "feed", "--consumer", "takedown").stdout == ""
