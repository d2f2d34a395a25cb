"""One image under several policies: submitted, rung and claimed together; judged and ended each by itself."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import pytest
import redis
from PIL import Image
from sqlalchemy import Engine

from moderation.assessment import Submission, Ticket
from moderation.errors import InvalidSubmission, UnknownPolicy
from moderation.ledger.claim import beat, claim
from moderation.ledger.engine import open_ledger
from moderation.ledger.explain import explanation
from moderation.ledger.outcomes import give_back
from moderation.ledger.policies import seed_builtin
from moderation.ledger.relay import Due, ring_due
from moderation.ledger.sweep import expire
from moderation.policy import builtin_policies
from producer import Client
from producer.chunks import CHUNK
from producer.validation import validated_under
from tests.support.ledger import POLICY, attempts, row, submitted
from tests.support.sglang_requests import Recorded
from tests.support.sglang_server import ScriptedServer
from tests.support.waiting import wait_for
from worker.events.outcome import in_words
from worker.service import WorkerService
from worker.settings import WorkerSettings

THREE = ["llavaguard-default", "newsroom", "strict"]


@pytest.fixture
def ledger(services_env: dict[str, str]) -> Iterator[Engine]:
    engine = open_ledger(services_env["DATABASE_URL"])
    seed_builtin(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def client(ledger: Engine) -> Iterator[Client]:
    with Client() as client:
        yield client


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "a.png"
    Image.new("RGB", (32, 24), (200, 120, 40)).save(path)
    return path.as_uri()


@pytest.fixture
def service(
    services_env: dict[str, str], server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], WorkerService]]:
    """A worker's parts in this process, without Celery: what it is given, it works on at once."""
    monkeypatch.setenv("VETLINE_FETCH_FILE_ROOTS", str(tmp_path))
    with ExitStack() as stack:

        def make() -> WorkerService:
            settings = WorkerSettings(name="w1", sglang_url=server.url)
            made = WorkerService(services_env["DATABASE_URL"], services_env["REDIS_URL"], settings)
            stack.callback(made.stop)
            stack.callback(made.intake_gate.stop)
            made.start(leave=lambda _: None)
            return made

        yield make


def prompt_of(policy: str) -> str:
    return next(p.prompt for p in builtin_policies() if p.policy == policy).strip()


def judged(server: ScriptedServer) -> list[Recorded]:
    """What was asked about an image."""
    return [request for request in server.requests if request.image is not None]


def ids(tickets: list[Ticket]) -> list[UUID]:
    return [ticket.id for ticket in tickets]


def states(ledger: Engine, tickets: list[Ticket]) -> list[str]:
    return [row(ledger, ticket.id)["state"] for ticket in tickets]


def outcomes(ledger: Engine, ticket: Ticket) -> list[tuple[str, str | None]]:
    return [(a["outcome"], a["error_code"]) for a in attempts(ledger, ticket.id)]


# --- submit and ring


def test_each_policy_has_an_assessment_of_its_own_and_one_ring_for_all(
    ledger: Engine, client: Client, services_env: dict[str, str]
) -> None:
    tickets = client.submit_under("https://images.test/1.jpg", THREE, key="k", batch="b", metadata={"n": 1})
    assert [ticket.policy for ticket in tickets] == [f"{policy}@1" for policy in THREE]
    rows = [row(ledger, ticket.id) for ticket in tickets]
    assert len({r["submission_id"] for r in rows}) == 1
    assert {(r["uri"], r["key"], r["batch"]) for r in rows} == {("https://images.test/1.jpg", "k", "b")}
    with redis.Redis.from_url(services_env["REDIS_URL"]) as connection:
        assert connection.llen("vetline.due") == 1
    again = client.submit_under("https://images.test/1.jpg", [*THREE, "dataset-curation"], key="k")
    assert [ticket.known for ticket in again] == [True, True, True, False]
    assert ids(again)[:3] == ids(tickets)


def test_one_policy_has_no_siblings(ledger: Engine, client: Client) -> None:
    for tickets in (
        client.submit_under("https://images.test/1.jpg", [POLICY]),
        [client.submit("file:///a", POLICY)],
    ):
        assert row(ledger, tickets[0].id)["submission_id"] is None


def test_many_images_under_several_policies_stay_together_over_the_ends_of_chunks(
    ledger: Engine, client: Client
) -> None:
    chunks: list[int] = []
    uris = [f"https://images.test/{n}.jpg" for n in range(CHUNK // 2)]
    total = client.submit_many(uris, THREE, batch="b", on_tickets=lambda tickets: chunks.append(len(tickets)))
    assert (total.accepted, total.known) == (len(uris) * 3, 0)
    assert sum(chunks) == len(uris) * 3
    assert len(chunks) == 2
    assert all(size % 3 == 0 for size in chunks)


@pytest.mark.parametrize(
    ("policies", "key", "said"),
    [
        ([], None, "name at least one"),
        (["strict", "newsroom", "strict"], None, "strict stands twice"),
        (["strict@1", "strict"], "k", "strict stands twice"),
        (["strict@1", "strict@2"], "k", "a key means one assessment for each id"),
    ],
)
def test_policies_that_cannot_stand_together_are_refused(
    policies: list[str], key: str | None, said: str
) -> None:
    with pytest.raises(InvalidSubmission, match=said):
        validated_under(policies, uri="https://images.test/1.jpg", key=key)


def test_one_unknown_policy_of_several_accepts_none(ledger: Engine, client: Client) -> None:
    with pytest.raises(UnknownPolicy):
        client.submit_under("https://images.test/1.jpg", ["strict", "no-such"])
    assert rung(ledger) == []


def rung(ledger: Engine) -> list[Due]:
    seen: list[Due] = []
    ring_due(ledger, seen.extend, urgent=100, others=100)
    return seen


# --- claim


def together(ledger: Engine, client: Client, uri: str = "https://images.test/1.jpg") -> list[Ticket]:
    return client.submit_under(uri, THREE)


def test_who_claims_one_claims_its_due_siblings_and_nothing_else(ledger: Engine, client: Client) -> None:
    tickets, other = together(ledger, client), submitted(ledger)
    (waits,) = claim(ledger, [other], worker="w0", lease_s=45)
    first, second, third = claim(ledger, [tickets[1].id], worker="w1", lease_s=45)
    assert {first.id, second.id, third.id} == set(ids(tickets))
    give_back(ledger, second, worker="w1", delay_s=60)
    give_back(ledger, third, worker="w1")
    again = claim(ledger, [third.id], worker="w2", lease_s=45)
    assert [c.id for c in again] == [third.id], "a sibling that is running, or not due, is left"
    assert beat(ledger, [first, *again, waits], lease_s=45) == set()


def test_many_who_answer_one_ring_claim_each_row_once(ledger: Engine, client: Client) -> None:
    tickets = together(ledger, client)
    at_once = threading.Barrier(16)

    def answer(number: int) -> list[UUID]:
        at_once.wait()
        return [c.id for c in claim(ledger, [tickets[number % 3].id], worker=f"w{number}", lease_s=45)]

    with ThreadPoolExecutor(16) as pool:
        claimed = [id_ for taken in pool.map(answer, range(16)) for id_ in taken]
    assert sorted(claimed) == sorted(ids(tickets))


def test_a_dead_workers_siblings_are_each_a_crash_and_come_back_together(
    ledger: Engine, client: Client
) -> None:
    tickets = together(ledger, client)
    claim(ledger, [tickets[0].id], worker="w1", lease_s=-1)
    assert set(expire(ledger, worker="sweeper", max_crashes=10) or ()) == set(ids(tickets))
    again = claim(ledger, [rung(ledger)[0].id], worker="w2", lease_s=45)
    assert [(c.crashes, c.attempt, c.charged) for c in again] == [(1, 2, 1)] * 3


# --- judge and end


def test_one_that_cannot_be_judged_fails_alone(
    ledger: Engine, client: Client, server: ScriptedServer, service: Callable[[], WorkerService], picture: str
) -> None:
    server.script(
        [{"when": {"text": prompt_of("newsroom")}, "do": {"kind": "text", "text": "I cannot say."}}]
    )
    tickets = together(ledger, client, picture)
    assert in_words(service().work(tickets[0].id)) == "safe failed:malformed_answer safe"
    assert states(ledger, tickets) == ["done", "failed", "done"]
    assert [len(attempts(ledger, ticket.id)) for ticket in tickets] == [1, 1, 1]


def test_the_image_is_fetched_and_decoded_once(
    ledger: Engine, client: Client, service: Callable[[], WorkerService], picture: str
) -> None:
    tickets = together(ledger, client, picture)
    service().work(tickets[2].id)
    timed = [set(attempts(ledger, ticket.id)[0]["timings_ms"]) for ticket in tickets]
    assert timed == [{"fetch", "decode", "judge"}, {"judge"}, {"judge"}]


def test_what_cannot_be_fetched_ends_each(
    ledger: Engine,
    client: Client,
    service: Callable[[], WorkerService],
    server: ScriptedServer,
    tmp_path: Path,
) -> None:
    gone = together(ledger, client, (tmp_path / "gone.png").as_uri())
    (tmp_path / "notes.png").write_text("no pixels")
    notes = together(ledger, client, (tmp_path / "notes.png").as_uri())
    worker = service()
    assert in_words(worker.work(gone[0].id)) == " ".join(["failed:not_found"] * 3)
    assert in_words(worker.work(notes[0].id)) == " ".join(["failed:unsupported_type"] * 3)
    assert states(ledger, gone + notes) == ["failed"] * 6
    assert not judged(server)


def test_what_cannot_be_fetched_for_now_comes_back_together(
    ledger: Engine, client: Client, service: Callable[[], WorkerService], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VETLINE_FETCH_ALLOW_HOSTS", "127.0.0.1")
    tickets = together(ledger, client, "http://127.0.0.1:9/a.jpg")
    assert in_words(service().work(tickets[0].id)) == " ".join(["later:host_unavailable"] * 3)
    due = [row(ledger, ticket.id)["not_before"] for ticket in tickets]
    assert (max(due) - min(due)).total_seconds() < 0.2
    assert [row(ledger, ticket.id)["charged"] for ticket in tickets] == [1, 1, 1]


def test_a_runtime_that_is_away_gives_each_back_uncharged(
    ledger: Engine, client: Client, server: ScriptedServer, service: Callable[[], WorkerService], picture: str
) -> None:
    tickets = together(ledger, client, picture)
    worker = service()
    server.stop_listening()
    assert in_words(worker.work(tickets[0].id)) == " ".join(["back:runtime_unavailable"] * 3)
    assert [outcomes(ledger, ticket) for ticket in tickets] == [[("given_back", "runtime_unavailable")]] * 3
    assert [row(ledger, ticket.id)["charged"] for ticket in tickets] == [0, 0, 0]
    assert not worker.intake_gate.is_open


def test_all_are_in_hand_until_each_has_ended_and_a_drain_gives_back_the_rest(
    ledger: Engine, client: Client, server: ScriptedServer, service: Callable[[], WorkerService], picture: str
) -> None:
    server.script([{"when": {"text": prompt_of("newsroom")}, "do": {"kind": "hang"}}])
    tickets = together(ledger, client, picture)
    worker = service()
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(worker.work, tickets[0].id)
        server.wait_until(lambda s: len(judged(s)) == 2, timeout_s=30)
        # The first has ended, the second is being judged, the third waits.
        wait_for(lambda: {claim.id for claim in worker.processor.held_claims.held()} == set(ids(tickets)[1:]))
        assert worker.processor.give_back_all() == 2
        server.script()
        server.stop_listening()
        server.listen()
        assert in_words(working.result(timeout=30)) == "safe back:runtime_unavailable lease_lost"
    assert states(ledger, tickets) == ["done", "queued", "queued"]
    assert [row(ledger, ticket.id)["charged"] for ticket in tickets] == [1, 0, 0]
    assert len(worker.processor.held_claims) == 0


def test_suspects_among_siblings_come_last_and_are_tried_alone(
    ledger: Engine, client: Client, server: ScriptedServer, service: Callable[[], WorkerService], picture: str
) -> None:
    tickets = together(ledger, client, picture)
    for _ in range(2):  # two workers die with the first in hand, and had given back the others
        for item in claim(ledger, [tickets[0].id], worker="w0", lease_s=-1):
            if item.id != tickets[0].id:
                give_back(ledger, item, worker="w0")
        assert expire(ledger, worker="sweeper", max_crashes=10) == [tickets[0].id]
    assert in_words(service().work(tickets[0].id)) == "safe safe safe"
    asked = [next(p for p in THREE if prompt_of(p) in request.text) for request in judged(server)]
    assert asked == ["newsroom", "strict", "llavaguard-default"]
    timed = [set(attempts(ledger, ticket.id)[-1]["timings_ms"]) for ticket in tickets]
    assert timed[1:] == [{"fetch", "decode", "judge"}, {"judge"}]
    assert timed[0] == {"fetch", "decode", "judge"}, "in a process of its own, from the start"


def test_submissions_that_say_they_belong_together_but_name_other_images_are_each_looked_at(
    ledger: Engine, client: Client, service: Callable[[], WorkerService], tmp_path: Path
) -> None:
    made = validated_under(THREE, uri="https://images.test/1.jpg")
    uris = []
    for n in range(2):
        Image.new("RGB", (32 + n, 24), (n, n, n)).save(tmp_path / f"{n}.png")
        uris.append((tmp_path / f"{n}.png").as_uri())
    wrong = [Submission(**(made[n].model_dump() | {"uri": uris[n]})) for n in range(2)]
    seen: list[Ticket] = []
    client.submit_many(wrong, on_tickets=seen.extend)
    assert in_words(service().work(seen[0].id)) == "safe safe"
    assert [width(ledger, ticket) for ticket in seen] == [32, 33]


def width(ledger: Engine, ticket: Ticket) -> int:
    told = explanation(ledger, ticket.id)
    assert told is not None
    return int(told["verdict"]["width"])
