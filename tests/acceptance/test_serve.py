"""`vetline serve` as a service in another language meets it: a real process on real Postgres and Redis."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import Engine, text

from moderation.errors import NotFound
from moderation.ledger import counters
from moderation.ledger.engine import open_ledger
from moderation.ledger.migrate import upgrade
from moderation.ledger.outcomes import fail
from moderation.ledger.policies import seed_builtin
from moderation.ledger.retry import cancel_queued
from moderation.ledger.selection import Selection
from moderation.services.postgres import LocalPostgres
from moderation.verdict import Rating
from producer.serve.messages import MAX_ITEMS
from producer.serve.tokens import Role
from tests.support.ledger import POLICY, claimed, record, row, verdict
from tests.support.serve import RunningApi
from tests.support.services import SessionPostgres, SessionRedis
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def services(postgres_server: SessionPostgres, redis_server: SessionRedis) -> Iterator[dict[str, str]]:
    with postgres_server.database() as database_url, redis_server.database() as redis_url:
        yield {"DATABASE_URL": database_url, "REDIS_URL": redis_url}


@pytest.fixture(scope="module")
def engine(services: dict[str, str]) -> Iterator[Engine]:
    engine = open_ledger(services["DATABASE_URL"])
    seed_builtin(engine)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, engine: Engine, services: dict[str, str]
) -> Iterator[RunningApi]:
    limits = {"VETLINE_SERVE_MAX_BODY_BYTES": "400000", "VETLINE_SERVE_BODY_TIMEOUT_S": "1"}
    with RunningApi(tmp_path_factory.mktemp("door"), services | limits) as api:
        yield api


def image(number: int = 1, **fields: Any) -> dict[str, Any]:
    return {"uri": f"https://images.test/{number}.jpg?sig=s3cr3t", "policy": POLICY} | fields


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that the answer must be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, f"urn:vetline:problem:{code}")
    assert body["title"]
    return body


def test_one_image_is_committed_when_the_answer_comes(api: RunningApi, engine: Engine) -> None:
    about = {"key": "k1", "batch": "one", "priority": "high", "tenant": "t", "metadata": {"post": [1, None]}}
    answer = api.submit(image(**about))
    assert answer.status_code == 202, answer.text
    (ticket,) = answer.json()["assessments"]
    found = row(engine, UUID(ticket["id"]))
    assert {name: found[name] for name in about} == about | {"priority": 0}
    assert ticket | {"index": 0, "policy": f"{POLICY}@1", "known": False} == ticket
    (again,) = api.submit(image(2, **about)).json()["assessments"]
    assert (again["id"], again["known"]) == (ticket["id"], True)


def test_a_repeat_of_what_was_cancelled_says_so_and_does_not_revive_it(
    api: RunningApi, engine: Engine
) -> None:
    one, other = image(1, key="c1", batch="gone"), image(2, key="c2", batch="gone")
    (ticket,) = api.submit(one).json()["assessments"]
    cancel_queued(engine, Selection(batch="gone"))
    told = api.submit([one, other]).json()["assessments"]
    assert [(t["known"], t["cancelled"]) for t in told] == [(True, True), (False, False)]
    assert told[0]["id"] == ticket["id"]
    assert counters.counts(engine, batch="gone") == {"cancelled": 1, "queued": 1}


def test_a_thousand_images_come_in_one_request_and_no_more(api: RunningApi, engine: Engine) -> None:
    many = [image(n, batch="thousand") for n in range(MAX_ITEMS)]
    tickets = api.submit(many).json()["assessments"]
    assert [ticket["index"] for ticket in tickets] == list(range(MAX_ITEMS))
    assert counters.counts(engine, batch="thousand") == {"queued": MAX_ITEMS}
    problem(api.submit([*many, image()]), 422, "invalid_request")
    pair = [image(n, policy=[POLICY, "newsroom"], batch="pairs") for n in range(MAX_ITEMS // 2 + 1)]
    problem(api.submit(pair), 413, "too_many_items")
    assert counters.counts(engine, batch="pairs") == {}


def test_several_policies_judge_one_image(api: RunningApi, engine: Engine) -> None:
    tickets = api.submit([image(1), image(2, policy=[POLICY, "newsroom"])]).json()["assessments"]
    assert [(t["index"], t["policy"]) for t in tickets] == [
        (0, f"{POLICY}@1"), (1, f"{POLICY}@1"), (1, "newsroom@1"),
    ]  # fmt: skip
    assert len({row(engine, UUID(t["id"]))["submission_id"] for t in tickets[1:]}) == 1


def test_one_bad_image_and_nothing_is_accepted(api: RunningApi, engine: Engine) -> None:
    bad = problem(
        api.submit([image(batch="bad"), image(uri="ftp://x/1", batch="bad")]), 422, "invalid_request"
    )
    assert bad["errors"][0]["pointer"] == "/1/uri"
    said = "an image URI starts with https, http, s3, file or data and a colon; control characters are not allowed"
    assert (bad["errors"][0]["detail"], bad["detail"]) == (said, f"/1/uri: {said}")
    bad = problem(api.submit(image(key="a\nb", policy="Not An Id")), 422, "invalid_request")
    assert "pattern" not in str(bad)
    assert "control characters are not allowed" in [mistake["detail"] for mistake in bad["errors"]]
    bad = problem(api.submit(image(), **{"Idempotency-Key": "a b"}), 422, "invalid_request")
    assert "visible ASCII characters" in bad["detail"]
    bad = problem(api.submit([image(batch="bad", metadata={"a": "\0"})]), 422, "invalid_submission")
    assert bad["errors"][0]["pointer"] == "/0"
    problem(api.submit([image(batch="bad", policy="no-such")]), 422, "unknown_policy")
    assert counters.counts(engine, batch="bad") == {}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b'"text"', b"\xff\xfe", b"[" * 20_000, b'{"uri": NaN}',
        b'{"uri":"https://x/1","policy":"a","reuse":"yes"}', b'{"uri":"https://x/1","policy":"a","extra":1}',
        b'{"uri":"https://x/1","policy":"a","metadata":{"n":1e999}}', b'{"uri":"https://x/\\ud800","policy":"a"}',
    ],
)  # fmt: skip
def test_what_is_no_submission_is_a_problem(api: RunningApi, body: bytes) -> None:
    headers = api.bearer(Role.SUBMIT) | {"Content-Type": "application/json"}
    answer = api.http.post("/v1/assessments", content=body, headers=headers)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_idempotency_key_gives_the_same_answer_and_submits_once(api: RunningApi, engine: Engine) -> None:
    key, body = str(uuid4()), [image(n, batch="idempotent") for n in range(3)]
    first, second = (api.submit(body, **{"Idempotency-Key": key}) for _ in range(2))
    assert (first.status_code, first.content) == (202, second.content)
    assert counters.counts(engine, batch="idempotent") == {"queued": 3}
    problem(api.submit(body[:1], **{"Idempotency-Key": key}), 422, "idempotency_key_reused")
    assert counters.counts(engine, batch="idempotent") == {"queued": 3}
    other = api.submit(body[:1], role=Role.ADMIN, **{"Idempotency-Key": key})
    assert other.status_code == 202, "each token has its own keys"


def test_one_idempotency_key_from_16_at_once_submits_once(api: RunningApi, engine: Engine) -> None:
    headers, body = {"Idempotency-Key": "crowd"}, [image(n, batch="crowd") for n in range(5)]
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: api.submit(body, **headers), range(16)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert counters.counts(engine, batch="crowd") == {"queued": 5}


def test_an_idempotency_key_that_was_refused_may_come_again(api: RunningApi) -> None:
    headers = {"Idempotency-Key": "mended"}
    problem(api.submit(image(policy="no-such"), **headers), 422, "unknown_policy")
    assert api.submit(image(), **headers).status_code == 202


def test_an_assessment_is_read_with_its_verdict_or_its_failure(api: RunningApi, engine: Engine) -> None:
    ids = [
        UUID(t["id"]) for t in api.submit([image(n, batch="read") for n in range(3)]).json()["assessments"]
    ]
    record(engine, claimed(engine, ids[0]), verdict(rating=Rating.UNSAFE), worker="w1")
    fail(engine, claimed(engine, ids[1]), NotFound("404 Not Found"), worker="w1", timings_ms={})
    done, failed, queued = (api.get(f"/v1/assessments/{id_}").json() for id_ in ids)
    assert (done["state"], done["verdict"]["rating"], done["failure"]) == ("done", "Unsafe", None)
    assert (failed["state"], failed["verdict"]) == ("failed", None)
    assert failed["failure"] == {"code": "not_found", "detail": "404 Not Found"}
    assert (queued["state"], queued["verdict"], queued["failure"]) == ("queued", None, None)
    assert "s3cr3t" not in str(queued)
    batch = api.get("/v1/batches/read").json()
    assert batch["states"] == {"queued": 1, "running": 0, "done": 1, "failed": 1, "cancelled": 0}


def test_what_is_not_there_is_404(api: RunningApi) -> None:
    problem(api.get(f"/v1/assessments/{uuid4()}"), 404, "not_found")
    problem(api.get("/v1/batches/none"), 404, "not_found")
    problem(api.get("/v1/batches/a%2Fb%00"), 404, "not_found")
    problem(api.get("/v2"), 404, "not_found")
    problem(api.get("/v1/assessments/not-an-id"), 422, "invalid_request")
    assert "GET" in api.http.delete("/v1/batches/x").headers["allow"]
    problem(api.http.put("/v1/assessments"), 405, "method_not_allowed")


def test_a_batch_may_have_a_slash_in_its_name(api: RunningApi) -> None:
    assert api.submit(image(batch="crawl/7 é")).status_code == 202
    assert api.get("/v1/batches/crawl/7%20%C3%A9").json()["name"] == "crawl/7 é"


def test_each_role_may_do_its_own(api: RunningApi) -> None:
    assert api.submit(image(), role=Role.ADMIN).status_code == 202
    problem(api.submit(image(), role=Role.READ), 403, "forbidden")
    problem(api.get("/v1/batches/x", role=Role.SUBMIT), 403, "forbidden")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic dTpw"}):
        answer = api.http.get("/v1/batches/x", headers=headers)
        problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    written = api.log.read_text() + api.tokens_file.read_text()
    assert not any(token in written for token in api.tokens.values())


def test_a_token_taken_out_of_the_file_opens_nothing(
    tmp_path: Path, engine: Engine, services: dict[str, str]
) -> None:
    with RunningApi(tmp_path, services) as api:
        assert api.submit(image()).status_code == 202
        lines = api.tokens_file.read_text().splitlines(keepends=True)
        api.tokens_file.write_text("".join(line for line in lines if "the-submit" not in line))
        wait_for(lambda: api.submit(image()).status_code == 401, timeout_s=10, what="a closed door")
        assert api.get("/v1/batches/x").status_code == 404
        assert api.stop() == 0, "asked to stop, it ends well"


def test_bodies_are_bounded_in_kind_size_and_time(api: RunningApi) -> None:
    headers = api.bearer(Role.SUBMIT)
    plain = api.http.post("/v1/assessments", content=b"{}", headers=headers | {"Content-Type": "text/plain"})
    problem(plain, 415, "unsupported_media_type")
    problem(api.submit(image(metadata={"a": "x" * 400_000})), 413, "body_too_large")

    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 65_536

    try:
        answer = api.http.post(
            "/v1/assessments", content=endless(), headers=headers | {"Content-Type": "application/json"}
        )
    except httpx.TransportError:
        pass  # closed while we still sent: as good
    else:
        problem(answer, 413, "body_too_large")
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as slow:
        slow.sendall(
            b"POST /v1/assessments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\nAuthorization: Bearer " + api.tokens[Role.SUBMIT].encode() + b"\r\n\r\n{"
        )
        assert slow.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_who_asks_too_fast_or_too_much_is_told_when_to_come_again(
    tmp_path: Path, engine: Engine, services: dict[str, str]
) -> None:
    rates = {
        "VETLINE_SERVE_REQUESTS_PER_S": "0.4",
        "VETLINE_SERVE_ITEMS_PER_S": "0.4",
        "VETLINE_QUEUE_WHEN_FULL": "wait",
    }
    with engine.connect() as connection:
        waiting = connection.execute(text("SELECT count(*) FROM assessment WHERE state = 'queued'"))
        rates["VETLINE_QUEUE_BOUND"] = str(waiting.scalar_one() + 4)
    with RunningApi(tmp_path, services | rates) as api:
        full = api.submit([image(n) for n in range(5)], role=Role.ADMIN)
        problem(full, 503, "queue_full")
        assert int(full.headers["retry-after"]) > 0
        assert api.submit([image(n) for n in range(4)]).status_code == 202
        answer = api.submit(image())
        problem(answer, 429, "rate_limited")
        assert 1 <= int(answer.headers["retry-after"]) <= 20
        assert api.get("/v1/batches/none").status_code == 404, "another token has its own rate"


def test_without_tokens_it_answers_on_loopback_alone_and_only_if_asked(
    tmp_path: Path, engine: Engine, services: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in services.items():
        monkeypatch.setenv(name, value)
    for options, said in (([], "vetline token"), (["--no-tokens", "--host", "0.0.0.0"], "for loopback")):
        ended = subprocess.run(
            [sys.executable, "-m", "moderation.cli", "serve", "--port", "0", *options],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ended.returncode == 2, ended.stderr
        assert said in ended.stderr
    with RunningApi(tmp_path, services, open_to_all=True) as api:
        assert api.http.post("/v1/assessments", json=image()).status_code == 202
        answer = api.http.get("/v1/batches/x", headers={"Host": "evil.example"})
        problem(answer, 421, "misdirected")


def test_probes_and_the_page_need_no_token(api: RunningApi) -> None:
    assert api.http.get("/live").json() == {"status": "ok"}
    assert api.http.get("/ready").json() == {"status": "ok"}
    page = api.http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "POST /v1/assessments" in page.text
    assert "http" not in page.text.replace("https://images.example/1.jpg", "").replace("(https|http|", "")
    assert api.http.get("/openapi.json").json()["openapi"].startswith("3.")


def test_a_database_that_stops_is_503_and_redis_that_is_away_is_nothing(
    tmp_path: Path, own_postgres: LocalPostgres
) -> None:
    engine = open_ledger(own_postgres.url)
    upgrade(engine)
    seed_builtin(engine)
    engine.dispose()
    env = {"DATABASE_URL": own_postgres.url, "REDIS_URL": "redis://127.0.0.1:1/0"}
    with RunningApi(tmp_path, env) as api:
        assert api.submit(image()).status_code == 202
        own_postgres.stop()
        gone = api.submit(image())
        body = problem(gone, 503, "ledger_unavailable")
        assert own_postgres.url not in body["detail"]
        assert int(gone.headers["retry-after"]) > 0
        problem(api.http.get("/ready"), 503, "ledger_unavailable")
        assert api.http.get("/live").status_code == 200


def test_the_api_answers_others_while_a_submission_waits(api: RunningApi, engine: Engine) -> None:
    with ThreadPoolExecutor(1) as threads:
        with engine.connect().execution_options(isolation_level="READ COMMITTED") as holder:
            holder.execute(text("LOCK TABLE assessment IN EXCLUSIVE MODE"))
            waiting = threads.submit(api.submit, image())
            wait_for(lambda: holder.execute(_WAITING).scalar_one(), what="a submission that waits")
            assert api.http.get("/live").status_code == 200
            assert api.get("/v1/batches/none").status_code == 404
            assert not waiting.done()
            holder.rollback()
        assert waiting.result(30).status_code == 202


_WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'assessment'::regclass")
