"""`vetline retry`, `cancel`, `failed` and `status` as typed, in this process: whom their filters mean, whom they leave."""

import json
from typing import Any
from uuid import UUID

import pytest
import typer
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from moderation.cli import failed as cli_failed
from moderation.cli import retry_cancel
from moderation.cli import status as cli_status
from moderation.errors import HostUnavailable, NotFound, Undecodable, VetlineError
from moderation.ledger.outcomes import fail
from moderation.ledger.retry import cancel_queued
from moderation.ledger.selection import Selection
from tests.support.ledger import claimed, record, row, submitted, verdict

NOBODY = "01a209ff-2fdb-740b-b519-169510a8ad94"


@pytest.fixture(autouse=True)
def configured(ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", ledger.url.render_as_string(hide_password=False))


def vetline(*words: object, code: int = 0) -> str:
    """What it prints, on stdout and stderr."""
    app = typer.Typer()  # without the root's callback, which sets up the logs of a process
    for module in (retry_cancel, cli_failed, cli_status):
        app.registered_commands += module.commands.registered_commands
    done = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(done.exception, VetlineError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def told(*words: object, code: int = 0) -> Any:
    return json.loads(vetline(*words, "--json", code=code))


def failed(ledger: Engine, error: VetlineError, **about: Any) -> UUID:
    item = claimed(ledger, submitted(ledger, **about))
    fail(ledger, item, error, worker="w1", timings_ms={})
    return item.id


def one_in_each_state(ledger: Engine) -> dict[str, UUID]:
    done, running = claimed(ledger), claimed(ledger)
    record(ledger, done, verdict(), worker="w1")
    cancelled = submitted(ledger)
    cancel_queued(ledger, Selection(ids=(cancelled,)))
    cleared = failed(ledger, NotFound("404"))
    with ledger.connect() as connection:
        connection.execute(text("UPDATE assessment SET cleared_at = now() WHERE id = :id"), {"id": cleared})
    return {
        "queued": submitted(ledger), "running": running.id, "done": done.id, "cancelled": cancelled,
        "failed": failed(ledger, NotFound("404")), "cleared": cleared,
    }  # fmt: skip


def test_an_id_that_is_not_retried_is_named_with_the_reason(ledger: Engine) -> None:
    ids = one_in_each_state(ledger)
    named = [*ids.values(), ids["failed"], NOBODY]
    why = {
        str(ids["queued"]): "is queued already",
        str(ids["running"]): "is running",
        str(ids["done"]): "is done: reassess, or enqueue --again, judges it again",
        str(ids["cancelled"]): "is cancelled: enqueue --again, or another key, judges it",
        str(ids["cleared"]): "cannot be fetched any more: retention cleared its URI",
        NOBODY: "is not in this ledger",
    }
    dry = told("retry", *named, "--dry-run", code=3)
    assert (dry["would_be_retried"], {one["id"]: one["why"] for one in dry["unchanged"]}) == (1, why)
    assert row(ledger, ids["failed"])["state"] == "failed"
    other = told("retry", ids["failed"], "--code", "undecodable", code=3)
    assert other["unchanged"] == [{"id": str(ids["failed"]), "why": "is not what the other filters mean"}]
    shown = vetline("retry", *named, code=3)
    assert "retried: 1" in shown
    assert all(f"{id_} {reason}" in shown for id_, reason in why.items())
    assert row(ledger, ids["failed"])["state"] == "queued"


def test_an_id_that_is_not_cancelled_is_named_with_the_reason(ledger: Engine) -> None:
    ids = one_in_each_state(ledger)
    done = told("cancel", *ids.values(), NOBODY, code=3)
    assert done["cancelled"] == 1
    assert {one["id"]: one["why"] for one in done["unchanged"]} == {
        str(ids["running"]): "is running: a worker has claimed it",
        str(ids["done"]): "is done",
        str(ids["failed"]): "has failed already",
        str(ids["cleared"]): "has failed already",
        str(ids["cancelled"]): "is cancelled already",
        NOBODY: "is not in this ledger",
    }
    only = submitted(ledger)
    assert told("cancel", only) == {"cancelled": 1, "unchanged": []}
    assert f"{only} is cancelled already" in vetline("cancel", only, code=3)


def test_a_tenant_and_several_codes_narrow_what_is_listed_and_changed(ledger: Engine) -> None:
    for tenant in ("a", "b"):
        for error in (NotFound("404"), Undecodable("no image"), HostUnavailable("502")):
            failed(ledger, error, tenant=tenant, batch=tenant.upper())
        submitted(ledger, tenant=tenant, batch="shared")
    codes = ("--code", "not_found", "--code", "undecodable")
    listed = told("failed", "--tenant", "a", *codes, "--by", "tenant")
    assert listed["counts"] == {"not_found": 1, "undecodable": 1}
    assert [(group["tenant"], group["n"]) for group in listed["groups"]] == [("a", 2)]
    assert {item["tenant"] for item in listed["items"]} == {"a"}
    assert told("retry", "--tenant", "a", *codes) == {"retried": 2}
    assert told("cancel", "--tenant", "b") == {"cancelled": 1}
    none = {"queued": 0, "running": 0, "done": 0, "failed": 0, "cancelled": 0}
    status = told("status", "--tenant", "b")
    assert (status["tenant"], status["states"]) == ("b", none | {"failed": 3, "cancelled": 1})
    assert told("status", "--tenant", "a")["states"] == none | {"queued": 3, "failed": 1}
    assert told("status", "--tenant", "a", "--batch", "shared")["states"] == none | {"queued": 1}
    assert told("status")["states"] == none | {"queued": 3, "failed": 4, "cancelled": 1}


def test_cancel_means_the_age_since_submission(ledger: Engine) -> None:
    old, new = submitted(ledger), submitted(ledger)
    with ledger.connect() as connection:
        connection.execute(
            text("UPDATE assessment SET created_at = created_at - interval '2 hours' WHERE id = :id"),
            {"id": old},
        )
    assert told("cancel", "--older-than", "1h", "--newer-than", "3h") == {"cancelled": 1}
    assert [row(ledger, id_)["state"] for id_ in (old, new)] == ["cancelled", "queued"]
