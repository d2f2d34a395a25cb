"""`vetline watch`: on a terminal a page until Ctrl-C, elsewhere a line of JSON a look."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import Engine

from moderation.errors import NotFound
from moderation.ledger.engine import open_ledger
from moderation.ledger.outcomes import fail
from moderation.ledger.policies import seed_builtin
from moderation.ledger.workers import register_worker
from moderation.worker_status import Wait
from tests.support.commands import run
from tests.support.ledger import claimed, record, submitted, verdict, worker_status
from tests.support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("services_env")


@pytest.fixture
def ledger(postgres_url: str) -> Iterator[Engine]:
    """One judged by w1, one failed, one in hand at w2, a worker of the release before; w3 has nothing to do."""
    engine = open_ledger(postgres_url)
    seed_builtin(engine)
    register_worker(engine, worker_status("w1"), silent_after_s=60)
    register_worker(
        engine, worker_status("w3", waiting=(Wait("runtime", "SGLang starts"),)), silent_after_s=60
    )
    record(engine, claimed(engine), verdict(), worker="w1")
    fail(engine, claimed(engine), NotFound("404"), worker="w1", timings_ms={})
    claimed(engine, submitted(engine, batch="b"), worker="w2")
    yield engine
    engine.dispose()


def test_each_look_is_a_line_where_nobody_sits_at_a_terminal(ledger: Engine, tmp_path: Path) -> None:
    ended = run(tmp_path, "watch", "--until-done", "--batch", "none")
    (line,) = ended.stdout.splitlines()
    seen = json.loads(line)
    assert (ended.returncode, seen["left_s"], seen["states"]["running"]) == (0, None, 0)
    assert [
        (w["worker"], w["state"], w["in_hand"], w["last_minute"], w["runtime"]) for w in seen["workers"]
    ] == [
        ("w3", "waiting", 0, 0, "sglang 0.5.16"),
        ("w1", "ready", 0, 1, "sglang 0.5.16"),
        ("w2", None, 1, 0, None),
    ]
    assert "workers: 1 ready, 1 waiting\n" in run(tmp_path, "status").stdout


def test_a_terminal_shows_a_page_until_ctrl_c(ledger: Engine, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "moderation.cli", "watch", "--every", "0.2"],
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
        start_new_session=True,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    shown = bytearray()

    def sees(*words: bytes) -> bool:
        with suppress(OSError):  # nothing yet
            shown.extend(os.read(ours, 65_536))
        assert process.poll() is None, bytes(shown)
        return all(word in shown for word in words)

    wait_for(
        lambda: sees(b"w2", b"not_found 1", b"done 1", b"SGLang starts", b"host-7 gpu0-h100"),
        timeout_s=60,
        what="the page",
    )
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    os.close(ours)
