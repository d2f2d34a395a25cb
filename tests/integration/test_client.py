"""The clients of an ingestion service, synchronous and asynchronous, against a real Postgres and Redis."""

import asyncio
import inspect
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine

from moderation.assessment import Submission
from moderation.errors import InvalidSubmission, LedgerUnavailable, UnknownPolicy
from moderation.ledger import counters
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from moderation.ledger.retry import cancel_queued
from moderation.ledger.selection import Selection
from producer import AsyncClient, Client, Submitted
from producer.chunks import CHUNK
from tests.support.ledger import POLICY, row

NOBODY = "postgresql://127.0.0.1:1/x?connect_timeout=1"


@pytest.fixture
def engine(services_env: dict[str, str]) -> Iterator[Engine]:
    engine = open_ledger(services_env["DATABASE_URL"])
    seed_builtin(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with Client() as client:
        yield client


def uri(number: int) -> str:
    return f"https://images.test/{number}.jpg"


def test_what_was_said_about_an_image_stands_in_its_row(engine: Engine, client: Client) -> None:
    about: dict[str, Any] = {"batch": "b", "tenant": "t", "metadata": {"post": 7, "tags": ["a", None]}}
    ticket = client.submit(uri(1), POLICY, key="k", priority="high", **about)
    found = row(engine, ticket.id)
    assert {name: found[name] for name in about} == about
    assert (found["key"], found["priority"], found["uri"]) == ("k", 0, uri(1))


def test_one_key_from_64_threads_at_once_is_one_assessment(engine: Engine, client: Client) -> None:
    together = threading.Barrier(64)

    def submit(number: int) -> tuple[object, bool]:
        together.wait(30)
        ticket = client.submit(uri(number), POLICY, key="the same")
        return ticket.id, ticket.known

    with ThreadPoolExecutor(64) as threads:
        answers = list(threads.map(submit, range(64)))
    assert len({id_ for id_, _ in answers}) == 1
    assert [known for _, known in answers].count(False) == 1
    assert counters.counts(engine) == {"queued": 1}


def test_one_key_from_64_coroutines_at_once_is_one_assessment(engine: Engine) -> None:
    async def submit() -> list[Any]:
        async with AsyncClient() as client:
            return await asyncio.gather(*(client.submit(uri(n), POLICY, key="same") for n in range(64)))

    tickets = asyncio.run(submit())
    assert len({ticket.id for ticket in tickets}) == 1
    assert [ticket.known for ticket in tickets].count(False) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"uri": "ftp://images.test/1.jpg"}, "uri: an image URI starts with"),
        ({"key": ""}, "key: "),
        ({"key": "a\0b"}, "key: control characters"),
        ({"batch": "b" * 201}, "batch: "),
        ({"tenant": ""}, "tenant: "),
        ({"priority": "urgent"}, "priority must be high, normal or low"),
        ({"metadata": {"a": "x" * 17_000}}, "metadata may have 16384 bytes"),
        ({"metadata": {"a": "\0"}}, "metadata may hold no NUL"),
        ({"metadata": {"a": "\ud800"}}, "metadata: "),
        ({"metadata": {"a": float("nan")}}, "metadata: "),
        ({"metadata": {"a": object()}}, "metadata: "),
        ({"metadata": {"a": threading.Lock()}}, "metadata: "),
    ],
)
def test_what_cannot_be_accepted_is_named(client: Client, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSubmission, match=r"^(?!.*images.test)") as caught:
        client.submit(**({"uri": uri(1), "policy": POLICY} | fields))
    assert said in str(caught.value)


def test_a_backslash_before_u0000_is_no_nul(engine: Engine, client: Client) -> None:
    metadata = {"a": "C:\\u0000", "b": "\\"}
    assert row(engine, client.submit(uri(1), POLICY, metadata=metadata).id)["metadata"] == metadata


def test_errors_are_the_same_from_both_clients(client: Client) -> None:
    with pytest.raises(UnknownPolicy):
        client.submit(uri(1), "no-such")

    async def submit(database_url: str | None, policy: str) -> None:
        async with AsyncClient(database_url) as there:
            await there.submit(uri(1), policy)

    with pytest.raises(UnknownPolicy):
        asyncio.run(submit(None, "no-such"))
    with pytest.raises(LedgerUnavailable):
        asyncio.run(submit(NOBODY, POLICY))


def test_what_is_accepted_is_committed_while_redis_is_away(engine: Engine) -> None:
    with Client(redis_url="redis://127.0.0.1:1/0") as client:
        ids = [client.submit(uri(n), POLICY).id for n in range(3)]
        assert client.submit_many(map(uri, range(5)), POLICY) == Submitted(accepted=5)
    assert [row(engine, id_)["state"] for id_ in ids] == ["queued"] * 3
    assert counters.counts(engine) == {"queued": 8}


async def _uris(count: int) -> AsyncIterator[str]:
    for number in range(count):
        if number % 100 == 0:
            await asyncio.sleep(0)
        yield uri(number)


@pytest.mark.parametrize("images", ["asynchronous", "synchronous"])
def test_many_from_any_iterable_tell_their_tickets_on_the_loop(engine: Engine, images: str) -> None:
    count = 2 * CHUNK + 1
    chunks: list[int] = []
    threads: set[int] = set()

    def told(tickets: Any) -> None:
        chunks.append(len(tickets))
        threads.add(threading.get_ident())

    async def submit() -> Submitted:
        source = _uris(count) if images == "asynchronous" else (uri(n) for n in range(count))
        async with AsyncClient() as client:
            return await client.submit_many(source, POLICY, batch="b", tenant="t", on_tickets=told)

    assert asyncio.run(submit()) == Submitted(accepted=count)
    assert chunks == [CHUNK, CHUNK, 1]
    assert threads == {threading.get_ident()}
    assert counters.counts(engine, batch="b") == {"queued": count}


def test_many_submissions_count_apart_what_was_cancelled_before(engine: Engine, client: Client) -> None:
    known = [Submission(uri=uri(n), policy=POLICY, key=f"k{n}") for n in range(4)]
    client.submit_many(known[:3])
    cancel_queued(engine, Selection(), limit=2)
    assert client.submit_many(known) == Submitted(accepted=1, known=3, cancelled=2)


def test_a_cancelled_coroutine_stops_reading_its_source(engine: Engine) -> None:
    async def endless() -> AsyncIterator[str]:
        for number in range(CHUNK + 10):
            yield uri(number)
        reached.set()
        await asyncio.Event().wait()

    async def submit() -> None:
        async with AsyncClient() as client:
            many = asyncio.create_task(client.submit_many(endless(), POLICY))
            await reached.wait()
            many.cancel()
            with pytest.raises(asyncio.CancelledError):
                await many

    reached = asyncio.Event()
    asyncio.run(asyncio.wait_for(submit(), 30))
    assert counters.counts(engine) == {"queued": CHUNK}, "whole chunks stand, and nothing else"


def test_an_error_of_the_source_comes_out_as_it_is(engine: Engine) -> None:
    async def broken() -> AsyncIterator[str]:
        yield uri(1)
        raise OSError("the bucket is gone")

    async def submit() -> None:
        async with AsyncClient() as client:
            await client.submit_many(broken(), POLICY)

    with pytest.raises(OSError, match="the bucket is gone"):
        asyncio.run(submit())


def test_the_event_loop_goes_on_while_many_are_submitted(engine: Engine) -> None:
    async def submit() -> int:
        turns = 0
        async with AsyncClient() as client:
            many = asyncio.create_task(client.submit_many(map(uri, range(5 * CHUNK)), POLICY))
            while not many.done():
                await asyncio.sleep(0)
                turns += 1
            assert (await many).accepted == 5 * CHUNK
        return turns

    assert asyncio.run(submit()) > 20


def test_memory_stays_the_same_however_many_there_are(client: Client) -> None:
    peaks: list[int] = []

    def told(_: object) -> None:
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()

    client.submit_many(map(uri, range(CHUNK)), POLICY)  # what is made once
    tracemalloc.start()
    try:
        client.submit_many(map(uri, range(8 * CHUNK)), POLICY, on_tickets=told)
    finally:
        tracemalloc.stop()
    assert len(peaks) == 8
    assert max(peaks[4:]) < 1.2 * max(peaks[:4])


@pytest.mark.parametrize("name", ["submit", "submit_under", "submit_all"])
def test_both_clients_are_called_alike(name: str) -> None:
    ours, theirs = getattr(AsyncClient, name), getattr(Client, name)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert inspect.iscoroutinefunction(ours)
    assert ours.__doc__ == theirs.__doc__
