"""Commands that print what models, uploaders and clients wrote: nothing of it commands the terminal, or is lost."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from moderation.celery_message import MessageRejected, Named
from moderation.errors import NotFound
from moderation.ledger import pauses
from moderation.ledger.engine import open_ledger
from moderation.ledger.outcomes import fail
from moderation.ledger.pauses import Scope
from moderation.ledger.policies import seed_builtin
from moderation.ledger.rejected import note_rejected
from moderation.plain_queue import Taken
from moderation.safe_text import csv_text
from moderation.verdict import Rating
from tests.support.commands import run
from tests.support.ledger import claimed, record, submitted, verdict
from worker.plain.rejection import rejection

EVIL = "=\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj.exe\u2066[red]x[/red]"
COMMANDS = (
    "verdicts", "verdicts --format jsonl", "verdicts --format csv", "explain ID", "explain ID --json",
    "explain ID --policy-text",
    "failed", "failed --json", "status", "status --json", "feed --once", "watch --until-done", "rejected list",
    "rejected list --json", "rejected show 1", "rejected show 1 --json", "policy list", "policy show llavaguard-default",
    "policy render llavaguard-default", "consumer list", "webhook list", "audit", "cap", "hold list", "doctor --worker",
)  # fmt: skip
_COMMANDS_A_TERMINAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_OF_RICH = re.compile(r"\x1b\[[0-9;]*m")  # colours of our own tables


@pytest.fixture
def hostile(services_env: dict[str, str]) -> Iterator[tuple[Engine, str]]:
    """A ledger whose every text of others is hostile; and the id of a verdict in it."""
    engine = open_ledger(services_env["DATABASE_URL"])
    seed_builtin(engine)
    evil = EVIL.replace("\x1b", "").replace("\x07", "")  # what a submission may hold: no C0 controls
    judged = claimed(
        engine, submitted(engine, batch=evil[1:], key=evil, tenant=evil[:100], metadata={"a": EVIL})
    )
    record(engine, judged, verdict(rationale=EVIL + "\r\nverdict: Safe", rating=Rating.UNSAFE), worker="w1")
    broken = claimed(engine, submitted(engine, f"https://images.test/{evil}"))
    fail(engine, broken, NotFound(EVIL), worker="w\x1b[2J", timings_ms={})
    pauses.pause(engine, Scope.BATCH, evil, reason=EVIL, by=EVIL)
    pauses.cap(engine, Scope.TENANT, evil, 5, by=EVIL)
    taken = Taken("t", json.dumps({"body": EVIL}).encode(), 20, "vetline", 0)
    named = Named(task_id=EVIL, task=EVIL, uri=EVIL, policy=EVIL)
    note_rejected(engine, [rejection(taken, named, MessageRejected("bad_body", EVIL))], worker="w1")
    yield engine, str(judged.id)
    engine.dispose()


def on_a_terminal(folder: Path, *words: str) -> str:
    """What `vetline WORDS` shows on a terminal of its own; less its progress bar, where it writes a file there."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "moderation.cli", *words],
        cwd=folder, env=os.environ | {"TERM": "xterm-256color"}, stdin=subprocess.DEVNULL, stdout=theirs,
        stderr=subprocess.DEVNULL if "--format" in words else theirs,
    ):  # fmt: skip
        os.close(theirs)
        shown = b""
        while True:
            try:
                some = os.read(ours, 65_536)
            except OSError:  # the other side is closed
                break
            shown += some
    os.close(ours)
    return shown.decode(errors="replace")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("words", COMMANDS)
def test_no_command_passes_on_what_commands_a_terminal(
    hostile: tuple[Engine, str], tmp_path: Path, words: str
) -> None:
    shown = on_a_terminal(tmp_path, *words.replace("ID", hostile[1]).split())
    if words.startswith("watch"):
        shown = re.sub(r"\x1b\[\??[0-9;]*[A-Za-z]", "", shown)  # it draws on the whole screen
    shown = _OF_RICH.sub("", shown).replace("\r\n", "\n")
    assert shown
    assert not _COMMANDS_A_TERMINAL.search(shown), ascii(shown)
    assert "Traceback" not in shown


def test_nothing_is_taken_out(hostile: tuple[Engine, str], tmp_path: Path) -> None:
    told = run(tmp_path, "explain", hostile[1]).stdout
    assert r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj.exe\u2066[red]x[/red]\r\nverdict: Safe" in told
    assert json.loads(run(tmp_path, "explain", hostile[1], "--json").stdout)["verdict"][
        "rationale"
    ].startswith(EVIL)


def test_csv_is_told_back_and_raw_is_as_it_is(hostile: tuple[Engine, str], tmp_path: Path) -> None:
    told = [run(tmp_path, "verdicts", "--format", "csv", *raw).stdout for raw in ((), ("--raw",))]
    (safe,), (raw,) = (list(csv.DictReader(io.StringIO(text, newline=""))) for text in told)
    assert safe["key"].startswith("'=")
    assert {name: csv_text(cell) for name, cell in safe.items()} == raw
    assert raw["key"].startswith("=")
    refused = run(tmp_path, "verdicts", "--raw")
    assert (refused.returncode, "--format csv" in refused.stderr) == (2, True)
