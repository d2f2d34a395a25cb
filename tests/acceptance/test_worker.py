"""What a worker does with what it is given, in real processes from submission to verdict."""

import signal
import time

import pytest
import redis
from celery import Celery

from moderation.assessment import State
from moderation.ledger import queries
from moderation.ledger.activity import workers
from moderation.ledger.explain import explanation as tell_story
from moderation.ledger.failures import failure_counts
from moderation.ledger.selection import Selection
from tests.acceptance.conftest import System
from tests.support.ledger import POLICY, attempts, row
from tests.support.waiting import wait_for


def story(system: System, id_: object) -> dict[str, object]:
    found = tell_story(system.engine, id_)  # type: ignore[arg-type]  # a UUID, as tickets carry it
    assert found is not None
    return found


def test_what_is_submitted_is_judged_and_can_be_explained(system: System) -> None:
    system.worker()
    system.server.script(default={"rating": "Unsafe", "category": "O4: Nudity Content"})
    ticket = system.client.submit(system.image("a"), POLICY, key="upload-1", metadata={"album": 7})
    system.wait_for_counts(done=1)
    told = story(system, ticket.id)
    verdict = told["verdict"]
    assert isinstance(verdict, dict)
    assert (verdict["rating"], verdict["category"]) == ("Unsafe", "O4: Nudity Content")
    assert verdict["raw_output"].startswith("{")
    assert len(verdict["prompt_sha256"]) == 64
    assert (verdict["width"], verdict["height"], verdict["template_mode"]) == (32, 24, "train")
    assert set(verdict["timings_ms"]) == {"fetch", "decode", "judge"}
    assert system.client.submit(system.image("a"), POLICY, key="upload-1").known


def test_work_submitted_before_any_worker_ran_is_found(system: System) -> None:
    system.client.submit_many([system.image(f"i{n}", (n, n, n)) for n in range(20)], POLICY)
    system.worker()
    system.wait_for_counts(done=20)


def test_a_message_delivered_twice_leaves_one_verdict(system: System) -> None:
    ticket = system.client.submit(system.image("a"), POLICY)
    with redis.Redis.from_url(system.env["REDIS_URL"]) as client:
        (message,) = client.lrange("vetline.due", 0, -1)  # type: ignore[misc]  # the sync client answers at once
        client.lpush("vetline.due", message, message)
    system.worker()
    system.wait_for_counts(done=1)
    wait_for(lambda: _queue_length(system) == 0, what="an empty queue")
    assert len(attempts(system.engine, ticket.id)) == 1


def _queue_length(system: System) -> int:
    with redis.Redis.from_url(system.env["REDIS_URL"]) as client:
        return int(client.llen("vetline.due"))  # type: ignore[arg-type]  # as above


def test_the_message_holds_no_secret_of_the_uri(system: System) -> None:
    system.client.submit("https://u:pw@images.test/a.jpg?X-Amz-Signature=c0ffee", POLICY)
    with redis.Redis.from_url(system.env["REDIS_URL"]) as client:
        everything = b"".join(client.lrange("vetline.due", 0, -1))  # type: ignore[arg-type]  # as above
    assert b"c0ffee" not in everything
    assert b"pw@" not in everything


def test_a_plain_celery_client_submits_by_uri_and_policy(system: System) -> None:
    system.worker()
    app = Celery(broker=system.env["REDIS_URL"])
    for _ in range(2):  # the same task id: a broker may deliver twice
        app.send_task(
            "vetline.assess",
            kwargs={"uri": system.image("plain"), "policy": POLICY},
            queue="vetline",
            task_id="6f3cb2f5-3f4d-4a55-8d0c-3d1a1f0a7a11",
        )
    system.wait_for_counts(done=1)
    app.close()


def test_a_worker_killed_while_judging_loses_nothing(system: System) -> None:
    first = system.worker()
    system.server.script(default={"latency_s": 30})
    ids = [system.client.submit(system.image(f"i{n}", (n, 0, 0)), POLICY).id for n in range(8)]
    wait_for(lambda: system.in_flight() == 8, what="8 requests in flight")
    first.kill()
    system.server.script(default={"latency_s": 0})
    start = time.monotonic()
    system.worker()
    system.wait_for_counts(done=8)
    assert time.monotonic() - start < 20
    for id_ in ids:
        assert [a["outcome"] for a in attempts(system.engine, id_)] == ["crashed", "done"]
        assert row(system.engine, id_)["charged"] == 1


def test_a_worker_that_stood_still_past_its_lease_loses_at_the_fence(system: System) -> None:
    sleeper = system.worker()
    system.server.script([{"do": {"latency_s": 2}, "times": 1}])
    ticket = system.client.submit(system.image("a"), POLICY)
    wait_for(lambda: system.in_flight() == 1, what="the request in flight")
    sleeper.send(signal.SIGSTOP)
    system.worker()
    system.wait_for_counts(done=1)
    sleeper.send(signal.SIGCONT)
    wait_for(lambda: sleeper.said("lease_lost_at_the_fence"), what="the stale writer's loss")
    assert [a["outcome"] for a in attempts(system.engine, ticket.id)] == ["crashed", "done"]


def test_sigterm_finishes_what_is_in_hand_and_charges_nothing(system: System) -> None:
    worker = system.worker()
    system.server.script(default={"latency_s": 1.5})
    for n in range(12):
        system.client.submit(system.image(f"i{n}", (0, n, 0)), POLICY)
    wait_for(lambda: system.in_flight() == 8, what="a full hand")
    assert worker.stop(timeout_s=10) == 0
    counts = system.counts()
    assert counts["done"] >= 8
    assert counts.get("running", 0) == 0
    system.worker()
    system.wait_for_counts(done=12)
    assert all(
        [a["outcome"] for a in attempts(system.engine, item["id"])] == ["done"]
        for item in queries.verdicts(system.engine)
    )


def test_what_hangs_past_the_drain_is_given_back_uncharged(system: System) -> None:
    worker = system.worker(VETLINE_WORKER_DRAIN_S="2")
    system.server.script(default={"kind": "hang"})
    ticket = system.client.submit(system.image("a"), POLICY)
    wait_for(lambda: system.in_flight() == 1, what="the request in flight")
    assert worker.stop(timeout_s=10) == 0
    standing = row(system.engine, ticket.id)
    assert (standing["state"], standing["charged"]) == ("queued", 0)
    assert workers(system.engine) == [], "it said that it has ended"


def test_a_runtime_that_is_away_costs_no_attempt_and_stops_consumption(system: System) -> None:
    worker = system.worker()
    system.server.stop_listening()
    ids = [system.client.submit(system.image(f"i{n}", (0, 0, n)), POLICY).id for n in range(20)]
    wait_for(lambda: worker.said("gate_shut"), what="the gate shut")
    system.server.listen()
    system.wait_for_counts(done=20)
    assert worker.said("gate_opened")
    for id_ in ids:
        assert {a["outcome"] for a in attempts(system.engine, id_)} <= {"given_back", "done"}
        assert row(system.engine, id_)["charged"] == 1


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("notes.jpg", b"these are notes, not pixels", "unsupported_type"),
        ("cut.png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "undecodable"),
        ("gone.jpg", None, "not_found"),
    ],
)
def test_what_is_no_image_fails_at_once_under_its_code(
    system: System, name: str, content: bytes | None, code: str
) -> None:
    system.worker()
    path = system.folder / name
    if content is not None:
        path.write_bytes(content)
    ticket = system.client.submit(path.as_uri(), POLICY)
    system.wait_for_counts(failed=1)
    assert failure_counts(system.engine, Selection()) == {code: 1}
    assert [a["outcome"] for a in attempts(system.engine, ticket.id)] == ["failed"]


def test_a_fault_of_the_runtime_is_tried_again_with_delay_then_failed(system: System) -> None:
    system.worker(VETLINE_LEASE_MAX_ATTEMPTS="3")
    system.server.script(default={"kind": "error", "error": "internal"})
    ticket = system.client.submit(system.image("a"), POLICY)
    system.wait_for_counts(failed=1)
    assert row(system.engine, ticket.id)["error_code"] == "runtime_fault"
    assert [a["outcome"] for a in attempts(system.engine, ticket.id)] == ["retried", "retried", "failed"]
    assert not list(queries.verdicts(system.engine)), "no verdict is not Safe"


def test_an_item_that_kills_workers_is_tried_alone_and_set_aside(system: System) -> None:
    fault = {"VETLINE_FAULT": "judge=kill~poison"}
    ticket = system.client.submit(system.image("poison"), POLICY)
    others = [system.client.submit(system.image(f"ok{n}", (n, n, 0)), POLICY).id for n in range(5)]
    deaths = 0
    worker = system.worker(ready=False, **fault)
    while row(system.engine, ticket.id)["state"] != State.FAILED:
        if worker.process.poll() is not None:
            deaths += 1
            worker = system.worker(ready=False, **fault)
        assert deaths <= 3, "the trial's child dies, not the worker"
        time.sleep(0.1)
    system.wait_for_counts(done=5, failed=1)
    standing = row(system.engine, ticket.id)
    assert (standing["error_code"], standing["crashes"]) == ("poison", 2)
    assert "signal 9" in standing["error_detail"]
    assert all(row(system.engine, id_)["state"] == State.DONE for id_ in others)
