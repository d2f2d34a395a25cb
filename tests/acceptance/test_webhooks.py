"""Webhooks from end to end: commands, a worker, Celery, and a receiver that verifies as the documentation shows."""

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from consumer.feed import Feed, FeedSettings
from moderation.cursor import START
from moderation.ledger import webhooks
from moderation.ledger.feed import EVERYTHING
from moderation.webhook import new_secret, sign
from tests.acceptance.conftest import System
from tests.support.commands import run
from tests.support.receiver import Receiver, hang, status
from tests.support.waiting import wait_for

_DOCUMENT = Path(__file__).parents[2] / "docs" / "consumers.md"
_LOOSE = {"VETLINE_WEBHOOK_ALLOW_HOSTS": "127.0.0.0/8", "VETLINE_WEBHOOK_ALLOW_HTTP": "true"}
_QUICK = _LOOSE | {
    "VETLINE_WEBHOOK_LOOK_S": "0.2",
    "VETLINE_WEBHOOK_RETRY_BASE_S": "0.2",
    "VETLINE_WEBHOOK_TOTAL_TIMEOUT_S": "2",
    "VETLINE_WEBHOOK_RING_AGAIN_S": "1",
}


def documented_verify() -> Callable[..., None]:
    """The example of docs/consumers.md, as it stands there."""
    blocks = re.findall(r"```python\n(.*?)```", _DOCUMENT.read_text(), flags=re.DOTALL)
    (source,) = (block for block in blocks if "def verify" in block)
    names: dict[str, Callable[..., None]] = {}
    exec(source, names)
    return names["verify"]


def test_the_documented_verification_takes_ours_and_no_other() -> None:
    verify = documented_verify()
    secret, other, body, now = new_secret(), new_secret(), b'{"type":"x"}', int(time.time())
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(now)}
    both = f"{sign(other, 'msg_1', now, body)} {sign(secret, 'msg_1', now, body)}"
    verify(secret, headers | {"webhook-signature": both}, body)
    old = now - 3600
    for forged in (
        (headers | {"webhook-signature": sign(other, "msg_1", now, body)}, body),
        (headers | {"webhook-signature": both}, body + b" "),
        (headers | {"webhook-signature": both, "webhook-id": "msg_2"}, body),
        (
            headers | {"webhook-timestamp": str(old), "webhook-signature": sign(secret, "msg_1", old, body)},
            body,
        ),
    ):
        with pytest.raises(ValueError, match=r"signed|old"):
            verify(secret, *forged)


def test_verdicts_reach_an_endpoint_in_order_through_failures_a_kill_and_a_pause(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _LOOSE.items():
        monkeypatch.setenv(name, value)

    def judged(count: int, first: int) -> list[str]:
        keys = [f"u{n}" for n in range(first, first + count)]
        for number, key in enumerate(keys, first):
            system.client.submit(system.image(key, (number, 9, 9)), policy="llavaguard-default", key=key)
        return keys

    def in_feed_order() -> list[str]:
        with system.engine.connect() as connection:
            return list(connection.execute(text("SELECT key FROM feed ORDER BY xid, seq")).scalars())

    only_notified = FeedSettings(poll_s=90)
    with (
        Receiver() as receiver,
        Receiver(answer=hang) as hanging,
        Feed(database_url=system.env["DATABASE_URL"], settings=only_notified) as feed,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(lambda: next(feed.batches()))
        said = run(tmp_path, "webhook", "add", "takedown", receiver.url(), "--json")
        receiver.secret = json.loads(said.stdout)["secret"]
        hanging.secret = new_secret()
        webhooks.add_webhook(
            system.engine, "stuck", hanging.url(), secret=hanging.secret, wanted=EVERYTHING, start=START
        )
        receiver.script = [status(500), status(503)]
        worker = system.worker(**_QUICK)
        judged(10, 0)
        wait_for(lambda: len(receiver.taken) >= 10, what="delivery")
        assert waiting.result(30), "the worker told nobody that it had recorded"
        worker.kill()
        system.worker(**_QUICK | {"VETLINE_WEBHOOK_LEASE_S": "1"})
        with system.engine.connect() as connection:  # what the killed sender may still hold
            connection.execute(text("UPDATE webhook SET lease_until = NULL"))
        webhooks.pause(system.engine, "takedown", because="a test")
        judged(5, 10)
        system.wait_for_counts(done=15)
        taken = len(receiver.taken)
        webhooks.resume(system.engine, "takedown")
        wait_for(lambda: len(set(receiver.taken)) == 15, what="delivery after the pause")
        assert taken == 10
        assert list(dict.fromkeys(receiver.taken)) == in_feed_order()
        assert receiver.forged == 0
        assert hanging.asked
        assert not hanging.taken
        secrets = (receiver.secret, hanging.secret)
        logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
        assert "webhook_failed" in logs
        assert not any(secret in logs for secret in secrets)
