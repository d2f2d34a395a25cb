"""Each role can do its verbs, by the project's own functions under a login of it, and no other."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from consumer.feed import Feed
from moderation.cursor import START
from moderation.errors import NotFound
from moderation.ledger import (
    consumers,
    counters,
    deliveries,
    migrate,
    pauses,
    queries,
    requests,
    retention,
    roles,
    webhooks,
)
from moderation.ledger import workers as ledger_workers
from moderation.ledger.activity import workers
from moderation.ledger.audit.finding import AuditFinding
from moderation.ledger.audit.run import audit
from moderation.ledger.audit.turn import take_turn
from moderation.ledger.claim import beat
from moderation.ledger.engine import open_ledger, transaction
from moderation.ledger.explain import explanation
from moderation.ledger.feed import EVERYTHING
from moderation.ledger.legal_holds import HoldTarget, add_hold
from moderation.ledger.outcomes import fail
from moderation.ledger.relay import ring_due
from moderation.ledger.retry import retry_failed
from moderation.ledger.selection import Selection
from moderation.ledger.status import assessment_status as how_it_stands
from moderation.ledger.sweep import expire
from moderation.ledger.verification import ReaderKind, go_back, verify_all, verify_places
from moderation.ledger.workers import register_worker, unregister_worker
from moderation.services.postgres import LocalPostgres
from moderation.settings import AuditSettings
from tests.support.ledger import claimed, record, submitted, verdict, worker_status
from tests.support.logins import login_url, run

Login = Callable[[str], Engine]
Verb = Callable[[Engine, Engine], Any]  # under the role; and as the owner, for what must be there before

_PRODUCER, _WORKER, _CONSUMER = "vetline_producer", "vetline_worker", "vetline_consumer"
_WATCHER, _SCALER, _APPROVER = "vetline_watcher", "vetline_scaler", "vetline_approver"
_ENDPOINT = {"secret": "whsec_x", "wanted": EVERYTHING, "start": START}


def _found_nothing(findings: list[AuditFinding]) -> None:
    assert findings == []


def _fold(engine: Engine) -> None:
    with transaction(engine) as connection:
        counters.fold(connection)


def _consume(engine: Engine) -> None:
    url = engine.url.render_as_string(hide_password=False)
    with Feed(consumer="c", database_url=url) as feed:
        list(feed.batches(follow=False))


def _added(owner: Engine) -> None:
    consumers.add_consumer(owner, "v", EVERYTHING, START)


def _verify_consumers(engine: Engine, owner: Engine) -> None:
    _added(owner)
    verify_all(engine, ReaderKind.CONSUMER)


def _set_back(engine: Engine, owner: Engine) -> None:
    _added(owner)
    go_back(engine, ReaderKind.CONSUMER, "v", START)


def _verify_places(engine: Engine, owner: Engine, *, checkpoint: bool) -> None:
    _added(owner)
    verify_places(engine, limit_rows=10, checkpoint=checkpoint)


def _send(engine: Engine, owner: Engine) -> None:
    made = webhooks.add_webhook(owner, "own", "https://hooks.test/", **_ENDPOINT)
    assert webhooks.secrets_of(engine, made.id) == ["whsec_x"]
    turn = deliveries.take(engine, made.id, holder="w", lease_s=5)
    assert turn is not None
    deliveries.release(engine, turn)


def _request(engine: Engine) -> None:
    requests.begin(engine, "shop", "k", "0" * 64)
    requests.forget(engine, "shop", "k")


def _leave(engine: Engine) -> None:
    unregister_worker(engine, "w", worker_status("w").started_at)


def _said(statement: str) -> Verb:
    def verb(engine: Engine, owner: Engine) -> Any:
        with engine.connect() as connection:
            return list(connection.execute(text(statement)))

    return verb


def _expire(engine: Engine) -> list[UUID] | None:
    return expire(engine, worker="w", max_crashes=3)


VERBS: dict[str, tuple[Verb, set[str]]] = {
    "submit": (lambda e, o: submitted(e), {_PRODUCER, _WORKER}),
    "submit and ring": (lambda e, o: submitted(e, rung=True), {_PRODUCER, _WORKER}),
    "stand": (lambda e, o: how_it_stands(e, submitted(o)), {_PRODUCER, _WORKER, _WATCHER}),
    "door's requests": (lambda e, o: _request(e), {_PRODUCER}),
    "count": (lambda e, o: (counters.counts(e), counters.pace(e)), {_PRODUCER, _WORKER, _WATCHER}),
    "claim": (lambda e, o: claimed(e, submitted(o)), {_WORKER}),
    "beat": (lambda e, o: beat(e, [claimed(o)], lease_s=5), {_WORKER}),
    "say that it is there": (lambda e, o: (register_worker(e, worker_status("w"), silent_after_s=5), _leave(e)), {_WORKER}),
    "look who is there": (lambda e, o: (ledger_workers.counts(e), workers(e)), {_WORKER, _WATCHER}),
    "record": (lambda e, o: record(e, claimed(o), verdict(), worker="w1"), {_WORKER}),
    "fail": (lambda e, o: fail(e, claimed(o), NotFound("404"), worker="w1", timings_ms={}), {_WORKER}),
    "sweep": (lambda e, o: _expire(e), {_WORKER}),
    "relay": (lambda e, o: ring_due(e, lambda due: None, urgent=5, others=5), {_WORKER}),
    "audit": (lambda e, o: _found_nothing(audit(e).findings), {_WORKER, _WATCHER}),
    "take a turn at the audit": (lambda e, o: take_turn(e, AuditSettings(every_s=1e-6)), {_WORKER}),
    "fold": (lambda e, o: _fold(e), {_WORKER}),
    "send": (_send, {_WORKER}),
    "consume": (lambda e, o: _consume(e), {_CONSUMER}),
    "verify consumers": (_verify_consumers, {_CONSUMER, _WORKER}),  # who sets a place back must be a consumer
    "set a consumer back": (_set_back, {_CONSUMER}),
    "verify places": (lambda e, o: _verify_places(e, o, checkpoint=True), {_WORKER}),
    "look at places": (lambda e, o: _verify_places(e, o, checkpoint=False), {_WORKER, _WATCHER}),
    "query views": (_said("SELECT * FROM verdict_current"), {_CONSUMER, _WATCHER}),
    "see what is open": (_said("SELECT * FROM unassessed"), {_CONSUMER, _WATCHER}),
    "scale": (_said("SELECT open, age_s FROM open_work"), {_SCALER, _WATCHER}),
    "read verdicts": (lambda e, o: list(queries.verdicts(e)), {_PRODUCER, _WORKER, _WATCHER}),
    "explain": (lambda e, o: explanation(e, submitted(o)), {_WORKER, _WATCHER}),
    "look for workers": (lambda e, o: queries.last_sweep(e), {_WORKER, _WATCHER}),
    "check the tables": (lambda e, o: migrate.current(e), {_PRODUCER, _WORKER, _CONSUMER, _WATCHER, _APPROVER}),
    "read secrets": (_said("SELECT secret FROM webhook_secret"), {_WORKER}),
    "read requests": (_said("SELECT * FROM request"), {_PRODUCER}),
    "read raw outputs": (_said("SELECT raw_output FROM verdict"), {_PRODUCER, _WORKER, _WATCHER}),
    "read raw URIs": (_said("SELECT uri FROM assessment"), {_PRODUCER, _WORKER, _WATCHER}),
    # What people do: for vetline_migrate alone.
    "retry": (lambda e, o: retry_failed(e, Selection()), {_WORKER}),  # the same right as to give back
    "pause": (lambda e, o: pauses.pause(e, pauses.Scope.BATCH, "b"), set()),
    "cap": (lambda e, o: pauses.cap(e, pauses.Scope.BATCH, "b", 3), set()),
    "add a policy": (
        _said("INSERT INTO policy_revision (policy, revision, title, document, prompt, prompt_sha256, created_by, "
              "reason) VALUES ('p', 1, '', '{}', '', '', '', '') RETURNING 1"), set(),
    ),
    "add a webhook": (lambda e, o: webhooks.add_webhook(e, "w", "https://h.test/", **_ENDPOINT), set()),
    "hold": (lambda e, o: add_hold(e, HoldTarget(batch="b"), reason="", by=""), set()),
    "clear": (lambda e, o: list(retention.clear_raw(e, datetime(2100, 1, 1, tzinfo=UTC), rows=5)), set()),
    "change a verdict": (_said("UPDATE verdict SET rating = 'Safe' WHERE false RETURNING 1"), set()),
    "delete assessments": (_said("DELETE FROM assessment WHERE false RETURNING 1"), set()),
    "drop a table": (_said("DROP TABLE sweep"), set()),
}  # fmt: skip


@pytest.fixture
def login(ledger: Engine) -> Iterator[Login]:
    """An engine under a login of its own in the group role named."""
    with ExitStack() as stack:

        def open_as(role: str) -> Engine:
            engine = open_ledger(stack.enter_context(login_url(ledger, role)))
            stack.callback(engine.dispose)
            return engine

        yield open_as


def _may(verb: Verb, engine: Engine, owner: Engine) -> bool:
    try:
        verb(engine, owner)
    except DBAPIError as exc:
        if "permission denied" not in str(exc) and "must be owner" not in str(exc):
            raise
        return False
    return True


@pytest.mark.parametrize("role", roles.GRANTS)
def test_a_role_can_do_its_verbs_and_no_other(ledger: Engine, login: Login, role: str) -> None:
    engine = login(role)
    can = {name for name, (verb, _) in VERBS.items() if _may(verb, engine, ledger)}
    assert can == {name for name, (_, who) in VERBS.items() if role in who}


def test_the_role_of_people_does_all_but_change_what_is_kept(ledger: Engine, login: Login) -> None:
    """Where the tables are somebody else's; one that owns them can also drop them."""
    engine = login(roles.OWNER)
    can = {name for name, (verb, _) in VERBS.items() if _may(verb, engine, ledger)}
    assert set(VERBS) - can == {"drop a table"}
    record(ledger, claimed(ledger), verdict(), worker="w1")
    with pytest.raises(DBAPIError, match="append-only"):
        _said("UPDATE verdict SET rating = 'Unsafe' RETURNING 1")(engine, ledger)


def test_every_table_and_view_is_granted_or_hidden_on_purpose(ledger: Engine) -> None:
    with ledger.connect() as connection:
        names = connection.execute(
            text(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
            )
        ).scalars()
        assert set(names) == {*roles.GRANTS[_WATCHER], *roles.HIDDEN}


def test_a_right_given_by_hand_goes_with_the_next_upgrade(ledger: Engine) -> None:
    with ledger.connect() as connection:
        connection.execute(text(f"GRANT DELETE ON verdict TO {_WORKER}"))
        assert migrate.upgrade(ledger) == migrate.head()
        assert not connection.execute(
            text(f"SELECT has_table_privilege('{_WORKER}', 'verdict', 'DELETE')")
        ).scalar_one()


def test_whoever_may_not_make_roles_migrates_all_the_same(own_postgres: LocalPostgres) -> None:
    """And what was left out is granted by the next upgrade after somebody has made them."""
    admin = open_ledger(own_postgres.url)
    run(admin, "CREATE ROLE plain LOGIN PASSWORD 'test'", "GRANT CREATE ON SCHEMA public TO plain")
    plain = open_ledger(
        admin.url.set(username="plain", password="test").render_as_string(hide_password=False)
    )
    assert migrate.upgrade(plain) == migrate.head()
    assert roles.roles_status(plain) == roles.RolesStatus(missing=roles.ROLES, bare=())
    run(admin, *(f"CREATE ROLE {role} NOLOGIN" for role in roles.ROLES))
    assert roles.roles_status(plain) == roles.RolesStatus(missing=(), bare=roles.ROLES)
    migrate.upgrade(plain)
    assert roles.roles_status(plain) == roles.RolesStatus(missing=(), bare=())
    plain.dispose()
    admin.dispose()
