"""`vetline up`: everything on one machine, shared with the other commands there, and gone when it ends."""

import json
import os
import signal
import urllib.request
from base64 import b64encode
from pathlib import Path
from urllib.error import HTTPError

import pytest

from moderation.ledger import counters
from moderation.ledger.engine import open_ledger
from tests.acceptance.test_demo import SAMPLES, home
from tests.support.commands import Running, nothing_runs_in, run
from tests.support.waiting import wait_for

__all__ = ["home"]  # a fixture

UP = ("up", "--judge", "open-nsfw")


def flower_answers(url: str, password: str | None) -> int:
    request = urllib.request.Request(f"{url}workers")
    if password is not None:
        request.add_header("Authorization", "Basic " + b64encode(f"vetline:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except HTTPError as refused:
        with refused:
            return refused.code
    except OSError:  # it does not listen yet
        return 0


def worker_pid(home: Path) -> int | None:
    """The process of the worker that runs in this folder: the one that judges, not its children."""
    for commandline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = commandline.read_bytes().split(b"\0")
            if (
                b"moderation.cli" in words
                and b"worker" in words
                and (commandline.parent / "cwd").readlink() == home
            ):
                return int(commandline.parent.name)
        except OSError:  # it has ended
            continue
    return None


def test_up_serves_the_commands_beside_it_and_ctrl_c_ends_all_of_it(home: Path) -> None:
    with Running(home, *UP) as up:
        up.wait_for("ready.")
        (home / "photographs").mkdir()
        (home / "photographs" / "cat.jpg").write_bytes((SAMPLES / "cat.jpg").read_bytes())
        queued = run(home, "enqueue", "photographs")
        assert queued.returncode == 0, queued.stderr
        engine = open_ledger(str(up.announced()["database_url"]))
        wait_for(lambda: counters.counts(engine) == {"done": 1})
        engine.dispose()

        url = str(up.announced()["flower_url"])
        password = (home / ".vetline" / "flower-password").read_text()
        wait_for(lambda: flower_answers(url, password) == 200)
        assert flower_answers(url, None) == 401
        judged = json.loads(run(home, "verdicts", "--format", "jsonl").stdout)["id"]
        assert f"in Flower: {url}task/{judged}" in run(home, "explain", judged).stdout

        second = run(home, *UP)
        assert second.returncode == 2
        assert "already" in second.stderr.splitlines()[-1]

        before = worker_pid(home)
        assert before is not None
        os.kill(before, signal.SIGKILL)
        up.wait_for("starting it again")
        wait_for(lambda: sum("ready." in line for line in up.lines) == 2)
        assert worker_pid(home) not in {None, before}

        up.process.send_signal(signal.SIGINT)
        assert up.ended() == 130
    assert up.lines[-1].split() == ["up", "|", "stopped"]
    assert not any("Traceback" in line for line in up.lines)
    assert not (home / ".vetline" / "run.json").exists()
    wait_for(lambda: nothing_runs_in(home), timeout_s=5)


def test_nothing_outlives_up_when_it_is_killed(home: Path) -> None:
    with Running(home, *UP, "--no-flower") as up:
        up.wait_for("ready.")
        up.process.kill()
        up.ended()
    wait_for(lambda: nothing_runs_in(home), timeout_s=40)


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("postgres", signal.SIGINT, 130),
        ("redis/url", signal.SIGINT, 130),
        ("run.json", signal.SIGTERM, 0),
    ],
)
def test_up_can_be_stopped_while_it_starts(
    home: Path, moment: str, number: signal.Signals, code: int
) -> None:
    with Running(home, *UP, "--no-flower") as up:
        wait_for(lambda: (home / ".vetline" / moment).exists(), every_s=0.002)
        up.process.send_signal(number)
        assert up.ended() == code
    assert up.lines[-1].split() == ["up", "|", "stopped"]
    assert not any("Traceback" in line for line in up.lines), up.lines
    wait_for(lambda: nothing_runs_in(home), timeout_s=20)


def test_a_worker_that_cannot_start_ends_up_in_one_line(home: Path) -> None:
    ran = run(home, "up", "--judge", "crystal-ball", "--no-flower")
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert "crystal-ball" in ran.stderr or "judge" in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("vetline: ")
    assert nothing_runs_in(home)
