"""`vetline enqueue` as a team meets it that submits a bucket overnight: interrupted, with bad lines, run again."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from moderation.ledger import counters
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from moderation.ledger.retry import cancel_queued
from moderation.ledger.selection import Selection
from tests.support.commands import run
from tests.support.waiting import wait_for

COUNT = 12_000
BAD = {17: "ftp://images.test/17.jpg", 11_990: "gone.jpg"}


@pytest.fixture
def engine(services_env: dict[str, str]) -> Iterator[Engine]:
    engine = open_ledger(services_env["DATABASE_URL"])
    seed_builtin(engine)
    yield engine
    engine.dispose()


def counted(engine: Engine, what: str = "*") -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(f"SELECT count({what}) FROM assessment")).scalar_one())


def interrupted(folder: Path, engine: Engine, number: signal.Signals, *words: str) -> int:
    """The exit code of `vetline enqueue WORDS`, sent this signal while it waits for Postgres with its third chunk."""
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as holder:
        process = subprocess.Popen(
            [sys.executable, "-m", "moderation.cli", "enqueue", *words],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            wait_for(lambda: counted(engine) >= 1000, timeout_s=60, every_s=0.005, what="the first chunk")
            holder.execute(text("LOCK TABLE assessment IN EXCLUSIVE MODE"))
            process.send_signal(number)
            holder.rollback()
            return process.wait(60)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(10)


@pytest.mark.parametrize(
    ("number", "code", "options"),
    [(signal.SIGKILL, -signal.SIGKILL, ["--again"]), (signal.SIGINT, 130, ["--batch", "night"])],
)
def test_interrupted_and_run_again_it_goes_on_and_doubles_nothing(
    tmp_path: Path, engine: Engine, number: signal.Signals, code: int, options: list[str]
) -> None:
    lines = (BAD.get(n, f"https://images.test/{n}.jpg") for n in range(1, COUNT + 1))
    (tmp_path / "night.txt").write_text("\n".join(lines))
    words = ["night.txt", *options, "--refused", "refused.jsonl"]
    assert interrupted(tmp_path, engine, number, *words) == code
    before = counted(engine)
    assert 1000 <= before < COUNT - len(BAD)
    ended = run(tmp_path, "enqueue", *words, "--json")
    assert ended.returncode == 3, ended.stderr
    assert "going on behind" in ended.stderr
    told = json.loads(ended.stdout)
    assert told["accepted"] + told["known"] == COUNT - len(BAD), "the counts are those of the whole run"
    assert told["known"] <= 1000, "at most the chunk under way was submitted again"
    assert counted(engine) == counted(engine, "DISTINCT uri") == COUNT - len(BAD)
    refused = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert [entry["line"] for entry in refused] == list(BAD)
    assert [entry["source"] for entry in refused] == ["night.txt"] * 2


def test_a_finished_run_begins_anew_and_knows_what_came_before(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "list.csv").write_text("id,link\nk1,https://x.test/1\nk2,https://x.test/2\n")
    words = ["enqueue", "list.csv", "--uri-column", "link", "--key-column", "id", "--metadata-column", "*"]
    assert _told(run(tmp_path, *words, "--json")) == {"accepted": 2, "known": 0, "cancelled": 0, "refused": 0}
    assert _told(run(tmp_path, *words, "--json")) == {"accepted": 0, "known": 2, "cancelled": 0, "refused": 0}
    bookmarks = tmp_path / ".vetline" / "enqueue"
    assert not list(bookmarks.glob("*.json"))
    again = _told(run(tmp_path, *words, "--again", "--json"))
    assert again == {"accepted": 2, "known": 0, "cancelled": 0, "refused": 0}
    assert counted(engine) == 4


def test_what_somebody_cancelled_stays_so_and_says_so_until_it_is_asked_for_again(
    tmp_path: Path, engine: Engine
) -> None:
    (tmp_path / "list.txt").write_text("https://x.test/1\nhttps://x.test/2\n")
    words = ["enqueue", "list.txt", "--batch", "zz"]
    assert run(tmp_path, *words).returncode == 0
    cancel_queued(engine, Selection(batch="zz"), limit=1)
    known = run(tmp_path, *words)
    assert known.returncode == 3, known.stderr
    assert "known 2, of them 1 cancelled and left so (--again judges them)" in known.stderr
    assert counters.counts(engine) == {"queued": 1, "cancelled": 1}
    again = _told(run(tmp_path, *words, "--again", "--json"))
    assert again == {"accepted": 2, "known": 0, "cancelled": 0, "refused": 0}
    assert counters.counts(engine) == {"queued": 3, "cancelled": 1}


def test_a_dry_run_asks_no_service_and_submits_nothing(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"url": "https://x.test/1"}\n{"url": "mailto:x"}\n')
    ended = run(tmp_path, "enqueue", "list.jsonl", "--dry-run", "--json")
    told = _told(ended)
    assert (ended.returncode, told["would_submit"], told["refused"]) == (3, 1, 1)
    assert json.loads(Path(tmp_path, told["refused_file"]).read_text())["line"] == 2
    (tmp_path / "other.jsonl").write_text('{"url": 5, "batch": "b"}\n')
    ended = run(tmp_path, "enqueue", "other.jsonl", "--dry-run", "--json")
    assert "not used: batch (--batch NAME, for all of a run)" in ended.stderr
    assert json.loads(Path(tmp_path, _told(ended)["refused_file"]).read_text())["reason"] == "url is not text"
    kept = json.loads(Path(tmp_path, told["refused_file"]).read_text())
    assert kept["source"] == "list.jsonl", "one dry run does not overwrite another's"
    assert not (tmp_path / ".vetline" / "postgres").exists()


def test_a_terminal_shows_how_fast_it_goes_and_how_long_it_takes(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "list.txt").write_text("\n".join(f"https://images.test/{n}.jpg" for n in range(COUNT)))
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "120", "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-m", "moderation.cli", "enqueue", "list.txt"],
        cwd=tmp_path, stderr=theirs, env=environment, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = "".join(_until_closed(ours))
        assert process.wait(60) == 0
    assert re.search(r"[1-9][\d,]*/s", shown), shown[-2000:]
    assert re.search(r"\d:\d\d:\d\d left", shown), shown[-2000:]
    assert f"accepted {COUNT}" in shown


def _until_closed(terminal: int) -> Iterator[str]:
    try:
        while data := os.read(terminal, 65_536):
            yield data.decode(errors="replace")
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(terminal)


def _told(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ended.stdout or "{}")
    assert found, ended.stderr
    return found
