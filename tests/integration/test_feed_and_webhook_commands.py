"""`vetline feed`, `consumer` and `webhook` as typed, in this process: what they print, and what they refuse."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from consumer.cli import feed
from moderation.errors import InvalidConsumer, InvalidCursor, InvalidWebhook, VetlineError
from tests.support.receiver import Receiver, status
from tests.support.recorded import record
from worker.webhooks import commands


@pytest.fixture(autouse=True)
def configured(ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", ledger.url.render_as_string(hide_password=False))
    monkeypatch.setenv("VETLINE_WEBHOOK_ALLOW_HOSTS", "127.0.0.0/8")
    monkeypatch.setenv("VETLINE_WEBHOOK_ALLOW_HTTP", "true")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


def vetline(*words: str, code: int = 0) -> str:
    """What it prints on stdout. Raises our own errors, which `main` says and turns into exit codes."""
    app = typer.Typer()  # without the root's callback, which sets up the logs of a process
    for module in (feed, commands):
        app.registered_commands += module.commands.registered_commands
        app.registered_groups += module.commands.registered_groups
    done = CliRunner().invoke(app, words)
    if isinstance(done.exception, VetlineError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


def told(*words: str) -> Any:
    return json.loads(vetline(*words, "--json"))


def keys(shown: str) -> list[str]:
    return [json.loads(line)["key"] for line in shown.splitlines()]


def test_the_feed_prints_lines_and_goes_on_from_a_cursor_or_a_name(ledger: Engine) -> None:
    with ledger.connect() as connection:
        record(connection, 30)
        record(connection, 3, first=30, rating="Unsafe")
    whole = vetline("feed", "--json")
    assert keys(whole) == [f"k{n}" for n in range(33)]
    cursor = json.loads(whole.splitlines()[30])["cursor"]
    unsafe = ("feed", "--unsafe", "--consumer", "takedown")
    assert keys(vetline(*unsafe, "--after", cursor)) == ["k31", "k32"]
    assert vetline(*unsafe) == ""
    with pytest.raises(InvalidConsumer, match="rating=Unsafe"):
        vetline("feed", "--consumer", "takedown")
    with pytest.raises(InvalidCursor):
        vetline("feed", "--after", "nonsense")
    assert keys(vetline("feed", "--category", "O2", "--policy", "llavaguard-default")) == [
        "k30",
        "k31",
        "k32",
    ]


def test_consumers_are_listed_moved_and_removed(ledger: Engine) -> None:
    with ledger.connect() as connection:
        record(connection, 3)
    vetline("feed", "--consumer", "takedown")
    (listed,) = told("consumer", "list")
    assert (listed["name"], listed["behind_s"], listed["read_by"]) == ("takedown", None, None)
    assert "everything" in vetline("consumer", "list")
    vetline("consumer", "move", "takedown", "--after", "start")
    assert len(vetline("feed", "--consumer", "takedown").splitlines()) == 3
    assert told("consumer", "move", "takedown", "--after", listed["cursor"]) == {"moved": "takedown"}
    vetline("consumer", "remove", "takedown")
    assert told("consumer", "list") == []
    with pytest.raises(InvalidConsumer):
        vetline("consumer", "move", "takedown", "--after", "now")


def test_a_webhook_is_added_tried_paused_and_removed(ledger: Engine, receiver: Receiver) -> None:
    receiver.secret = vetline(
        "webhook", "add", "takedown", receiver.url("/hook?token=abc"), "--unsafe"
    ).strip()
    assert receiver.secret.startswith("whsec_")
    assert told("webhook", "test", "takedown")["taken"]
    assert receiver.asked[0]["type"] == "webhook.test"
    receiver.script = [status(500)]
    vetline("webhook", "test", "takedown", code=1)
    receiver.secret = told("webhook", "rotate", "takedown")["secret"]
    assert told("webhook", "test", "takedown")["taken"]
    assert receiver.forged == 0
    vetline("webhook", "pause", "takedown", "--reason", "a test")
    shown = vetline("webhook", "list")
    assert "paused: a test" in shown
    assert "Unsafe" in shown
    vetline("webhook", "resume", "takedown")
    listed = vetline("webhook", "list", "--json")
    assert json.loads(listed)[0]["paused_at"] is None
    assert not any(hidden in shown + listed for hidden in (receiver.secret, "abc"))
    with pytest.raises(InvalidWebhook, match="already"):
        vetline("webhook", "add", "takedown", receiver.url())
    vetline("webhook", "remove", "takedown")
    for words in (("pause",), ("resume",), ("remove",), ("test",), ("failed",), ("retry",), ("rotate",)):
        with pytest.raises(InvalidWebhook, match="no webhook"):
            vetline("webhook", *words, "takedown")


def test_what_was_set_aside_is_listed_and_asked_for_again(ledger: Engine, receiver: Receiver) -> None:
    vetline("webhook", "add", "takedown", receiver.url())
    with ledger.connect() as connection:
        (id_,) = record(connection)
        aside = "INSERT INTO webhook_set_aside SELECT id, :verdict, 9, 'answered 500' FROM webhook"
        connection.execute(text(aside), {"verdict": id_})
    (listed,) = told("webhook", "failed", "takedown")
    assert (listed["assessment_id"], listed["error"]) == (str(id_), "answered 500")
    assert "answered 500" in vetline("webhook", "failed", "takedown")
    assert told("webhook", "retry", "takedown", str(id_)) == {"retried": 1}
    with pytest.raises(InvalidWebhook):
        vetline("webhook", "retry", "takedown", "x")
