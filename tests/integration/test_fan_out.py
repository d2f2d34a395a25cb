"""The rows of one message at a slow judge: shared out among threads, counted, shown, and given back alike."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from kombu import Connection, Exchange, Queue
from sqlalchemy import Engine

from moderation.doorbell import Doorbell
from moderation.errors import MalformedAnswer, RuntimeUnavailable
from moderation.ledger.outcomes import give_back_crashed
from moderation.ledger.relay import Due, ring_due
from moderation.transport import Transport
from moderation.verdict import Verdict
from tests.support.conservation import violations
from tests.support.ledger import attempts, claimed, row, submitted, verdict
from tests.support.processing import Assess, processor
from tests.support.waiting import wait_for
from worker.concurrency.adaptive_limit import AdaptiveLimit
from worker.concurrency.limiter import ConcurrencyLimiter
from worker.events import task_progress
from worker.events.outcome import Outcome, OutcomeKind
from worker.processing.fan_out import FanOut
from worker.processing.prefetch import Prefetch
from worker.processing.processor import Processor

ROWS = 16
SAFE = Outcome(OutcomeKind.SAFE)
THREADS = 8 * ROWS  # a message is an eighth of what is in hand


@contextmanager
def fanning_out(
    engine: Engine,
    redis_url: str,
    assess: Assess,
    *,
    threads: int = THREADS,
    prefetch: Prefetch | None = None,
) -> Iterator[tuple[Processor, FanOut]]:
    limiter = ConcurrencyLimiter(
        AdaptiveLimit(start=threads, least=threads, most=threads), most_threads=threads
    )
    fan_out = FanOut(limiter, threads=threads)
    with processor(engine, redis_url, assess, prefetch=prefetch, fan_out=fan_out, bundle=ROWS) as at:
        yield at, fan_out


def test_a_slow_judge_is_asked_about_all_rows_of_a_message_at_once(ledger: Engine, redis_url: str) -> None:
    together = threading.Barrier(ROWS)

    def assess(*_: object) -> Verdict:
        together.wait(10)  # none is answered before all are asked about
        return verdict()

    ids = [submitted(ledger) for _ in range(ROWS)]
    with fanning_out(ledger, redis_url, assess) as (at, fan_out):
        assert at.work(*ids) == [SAFE], "the first of them; the others end by themselves"
        wait_for(lambda: fan_out.parts == 0, what="the others")
        wait_for(lambda: len(at.held_claims) == 0, what="what was written last")
    assert {row(ledger, id_)["state"] for id_ in ids} == {"done"}
    assert violations(ledger) == []


def test_each_row_ends_in_its_own_way(ledger: Engine, redis_url: str) -> None:
    ids = [submitted(ledger, uri=f"https://images.test/{n}.jpg") for n in range(3)]

    def assess(item: Any, *_: object) -> Verdict:
        if item.id == ids[1]:
            raise MalformedAnswer("no JSON")
        if item.id == ids[2]:
            raise RuntimeUnavailable("away")
        return verdict()

    with fanning_out(ledger, redis_url, assess) as (at, _):
        assert at.work(*ids) == [SAFE]
    assert [attempts(ledger, id_)[0]["outcome"] for id_ in ids[1:]] == ["failed", "given_back"]
    assert [row(ledger, id_)["charged"] for id_ in ids] == [1, 1, 0]
    assert len(at.held_claims) == 0


def test_the_policies_of_one_image_stay_in_one_thread(ledger: Engine, redis_url: str) -> None:
    image = UUID(int=7)
    siblings = [submitted(ledger, submission_id=image, key=f"k{n}") for n in range(3)]
    others = [submitted(ledger) for _ in range(3)]
    threads: dict[UUID, int] = {}

    def assess(item: Any, *_: object) -> Verdict:
        threads[item.id] = threading.get_ident()
        return verdict()

    with fanning_out(ledger, redis_url, assess) as (at, _):
        at.work(*others, siblings[0])
    assert len({threads[id_] for id_ in siblings}) == 1
    assert len(threads) == 6


def test_a_suspect_is_worked_on_alone_in_its_messages_own_thread(ledger: Engine, redis_url: str) -> None:
    item = claimed(ledger)
    for _ in range(2):
        give_back_crashed(ledger, item, RuntimeUnavailable("died"), worker="w1")
        item = claimed(ledger, item.id)
    give_back_crashed(ledger, item, RuntimeUnavailable("died"), worker="w1")
    ids = [submitted(ledger) for _ in range(3)]
    threads: set[int] = set()

    def assess(*_: object) -> Verdict:
        threads.add(threading.get_ident())
        return verdict()

    with fanning_out(ledger, redis_url, assess) as (at, _):
        assert at.work(*ids, item.id) == [SAFE] * 4
    assert threads == {threading.get_ident()}


def test_a_small_worker_takes_few_rows_and_rings_the_others_together(ledger: Engine, redis_url: str) -> None:
    ids = [submitted(ledger) for _ in range(ROWS)]
    due: list[Due] = []
    ring_due(ledger, due.extend, urgent=100, others=100)
    doorbell = Doorbell(redis_url)
    with fanning_out(ledger, redis_url, lambda *_: verdict(), threads=16) as (at, _):
        at.work(*ids)
    assert doorbell.depths() == (0, 1)
    assert sorted(doorbell.waiting()) == ids[2:]
    doorbell.close()


# --- counted against the prefetch limit


@pytest.fixture
def channel(redis_url: str) -> Iterator[Any]:
    with Connection(redis_url, transport=Transport) as connection:
        yield connection.channel()


def test_a_message_counts_for_the_threads_that_it_needs_until_it_is_taken(
    redis_url: str, channel: Any
) -> None:
    doorbell = Doorbell(redis_url)
    ids = [UUID(int=n) for n in range(ROWS)]
    doorbell.ring([Due(id_, "https://images.test/1.jpg", "p@1", 1, 0) for id_ in ids], bundle=ROWS)
    received: list[Any] = []
    queue = Queue("vetline.due", Exchange(""), routing_key="vetline.due")
    consumer = channel.connection.client.Consumer(
        queue, channel=channel, on_message=received.append, accept=["json"]
    )
    qos = channel.qos
    qos.prefetch_count = 10
    qos.weigh = lambda rows: rows // 2
    consumer.consume()
    channel.connection.client.drain_events(timeout=5)
    assert len(received) == 1
    assert (qos.threads, qos.can_consume()) == (8, True)
    qos.apart = lambda: 7
    assert (qos.threads, qos.can_consume()) == (15, False)
    qos.taken(str(ids[0]))
    assert (qos.threads, qos.can_consume()) == (8, True)
    received[0].ack()
    assert qos.threads == 7
    doorbell.close()


def test_rows_that_were_handed_out_are_counted_no_more_by_their_message(
    ledger: Engine, redis_url: str, channel: Any
) -> None:
    ids = [submitted(ledger) for _ in range(ROWS)]
    doorbell = Doorbell(redis_url)
    ring_due(ledger, lambda due: doorbell.ring(due, bundle=ROWS), urgent=100, others=100)
    received: list[Any] = []
    queue = Queue("vetline.due", Exchange(""), routing_key="vetline.due")
    consumer = channel.connection.client.Consumer(
        queue, channel=channel, on_message=received.append, accept=["json"]
    )
    prefetch, in_hand = Prefetch(), []

    def assess(*_: object) -> Verdict:
        handed_out.wait(10)
        return verdict()

    handed_out = threading.Event()
    with fanning_out(ledger, redis_url, assess, prefetch=prefetch) as (at, fan_out):
        channel.qos.weigh, channel.qos.apart = at.threads_for, lambda: fan_out.parts
        prefetch.follow(channel.qos)
        consumer.consume()
        channel.connection.client.drain_events(timeout=5)
        in_hand.append(channel.qos.threads)
        working = threading.Thread(target=at.work, args=ids)
        working.start()
        wait_for(lambda: fan_out.parts == ROWS - 1 and channel.qos.threads == ROWS, what="each counted once")
        handed_out.set()
        working.join(10)
    in_hand.append(channel.qos.threads)
    assert in_hand == [ROWS, 1], "the message itself is acknowledged by Celery"
    doorbell.close()


# --- shown in Flower


def test_rows_without_a_task_are_told_of_as_tasks(redis_url: str) -> None:
    heard: list[dict[str, Any]] = []
    app = Celery(broker=redis_url)
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": heard.append})
        listening = threading.Thread(target=receiver.capture, kwargs={"wakeup": False}, daemon=True)
        listening.start()
        with app.connection_for_write() as other, app.events.Dispatcher(other) as dispatcher:
            wait_for(lambda: dispatcher.send("worker-online") or heard, what="somebody hears us")
            sender = task_progress.TaskEventSender()
            good, bad, late = (UUID(int=n) for n in range(3))
            rows = [
                task_progress.begin(id_, f"https://u:secret@images.test/{id_.int}.jpg", "p@1")
                for id_ in (good, bad)
            ]
            sender.tell(dispatcher)
            rows[0].end(Outcome(OutcomeKind.UNSAFE))
            rows[1].end(Outcome(OutcomeKind.FAILED, "undecodable"))
            put_off = task_progress.begin(late, "https://images.test/9.jpg", "p@1")
            put_off.end(Outcome(OutcomeKind.LATER, "host_unavailable"))
            sender.tell(dispatcher)
            wait_for(lambda: any(event["type"] == "task-retried" for event in heard), what="the last event")
        receiver.should_stop = True
        listening.join(timeout=10)
    app.close()
    told = {
        id_: [event["type"] for event in heard if event.get("uuid") == str(id_)] for id_ in (good, bad, late)
    }
    assert told[good] == ["task-received", "task-started", "task-succeeded"]
    assert told[bad] == ["task-received", "task-started", "task-failed"]
    assert told[late] == ["task-received", "task-started", "task-retried"]
    assert "secret" not in str(heard)
    assert any("https://images.test/0.jpg" in event.get("kwargs", "") for event in heard)
