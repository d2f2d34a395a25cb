"""`vetline rejected`: what was rejected is listed, mended, sent again and dropped."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from moderation.celery_message import MessageRejected, read_message
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from moderation.ledger.rejected import note_rejected, rejected_counts, rejected_message
from moderation.plain_queue import Taken
from tests.support.commands import run
from tests.support.ledger import POLICY
from tests.support.plain_client import protocol_2
from worker.plain.rejection import rejection

SECRET = "X-Amz-Signature=c0ffee"


@pytest.fixture
def ledger(services_env: dict[str, str]) -> Iterator[Engine]:
    engine = open_ledger(services_env["DATABASE_URL"])
    seed_builtin(engine)
    yield engine
    engine.dispose()


def reject(engine: Engine, message: object, *, code: str | None = None) -> None:
    raw = message if isinstance(message, bytes) else json.dumps(message).encode()
    named, why = read_message(raw, size=len(raw))
    if code is not None:  # as the ledger refuses it
        why = MessageRejected(code)
    assert isinstance(why, MessageRejected)
    note_rejected(engine, [rejection(Taken("t", raw, len(raw), "vetline", 0), named, why)], worker="w1")


def asked(policy: str, task_id: str) -> dict[str, object]:
    return protocol_2(
        kwargs={"uri": f"https://images.test/a.jpg?{SECRET}", "policy": policy}, task_id=task_id
    )


def test_a_message_is_mended_and_sent_again_under_its_own_key(ledger: Engine, tmp_path: Path) -> None:
    reject(ledger, asked("not-there", "t1"), code="unknown_policy")
    reject(ledger, asked("nor-this", "t2"), code="unknown_policy")
    listed = run(tmp_path, "rejected", "list").stdout
    assert "unknown_policy 2" in listed
    again = run(tmp_path, "rejected", "resubmit", "--code", "unknown_policy")
    assert (again.returncode, again.stdout.count("not sent: ")) == (3, 2)
    again = run(tmp_path, "rejected", "resubmit", "--code", "unknown_policy", "--policy", POLICY)
    assert again.returncode == 0, again.stderr
    with ledger.connect() as connection:
        rows = connection.execute(text("SELECT key, uri, ring_at FROM assessment ORDER BY key")).all()
    assert [row.key for row in rows] == ["celery:t1", "celery:t2"]
    assert all(SECRET in row.uri and row.ring_at is not None for row in rows)
    assert rejected_counts(ledger) == {}
    assert run(tmp_path, "rejected", "drop", "--resubmitted").stderr == "2 dropped\n"


def test_a_message_is_shown_without_its_secrets(ledger: Engine, tmp_path: Path) -> None:
    reject(ledger, asked("not-there", "t1"), code="unknown_policy")
    shown = run(tmp_path, "rejected", "show", "1")
    assert "https://images.test/a.jpg" in shown.stdout
    assert "c0ffee" not in shown.stdout + run(tmp_path, "rejected", "list", "--json").stdout
    assert run(tmp_path, "rejected", "show", "7").returncode == 1


def test_what_names_no_image_needs_one_and_can_be_dropped(ledger: Engine, tmp_path: Path) -> None:
    reject(ledger, b"no JSON")
    refused = run(tmp_path, "rejected", "resubmit", "1")
    assert (refused.returncode, "give --uri" in refused.stdout) == (3, True)
    sent = run(
        tmp_path,
        "rejected",
        "resubmit",
        "1",
        "--uri",
        "https://images.test/a.jpg",
        "--policy",
        POLICY,
        "--json",
    )
    assert json.loads(sent.stdout)[0]["problem"] is None
    reject(ledger, b"no JSON, too")
    assert json.loads(run(tmp_path, "rejected", "drop", "--code", "not_json", "--json").stdout) == {
        "dropped": 2
    }
    assert run(tmp_path, "rejected", "drop").returncode == 2


def test_what_comes_again_is_counted_and_the_body_is_bounded(ledger: Engine) -> None:
    for _ in range(3):
        reject(ledger, b"\xff\x00" + b"x" * 100_000)
    found = rejected_message(ledger, 1)
    assert found is not None
    assert (found["times"], found["bytes"], len(found["body"]) <= 4_010) == (3, 100_002, True)
