"""From failures that really happened to images that are judged, or given up, by the commands that an operator types."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from subprocess import CompletedProcess
from typing import Any
from uuid import UUID

from moderation.ledger.stuck import count_stuck
from tests.acceptance.conftest import System
from tests.support.commands import run
from tests.support.image_host import ImageHost
from tests.support.ledger import POLICY, row
from tests.support.waiting import wait_for

HOST = {"VETLINE_FETCH_ALLOW_HOSTS": "127.0.0.1", "VETLINE_LEASE_MAX_ATTEMPTS": "2"}
CODES = ("malformed_answer", "undecodable", "host_unavailable", "not_found")
TWO_CODES = ("--code", "malformed_answer", "--code", "host_unavailable")


def vetline(system: System, *words: object, code: int = 0) -> CompletedProcess[str]:
    ended = run(system.folder, *(str(word) for word in words))
    assert ended.returncode == code, ended.stderr
    return ended


def told(system: System, *words: object, code: int = 0) -> Any:
    return json.loads(vetline(system, *words, "--json", code=code).stdout)


def fail_in_four_ways(system: System, host: ImageHost) -> dict[str, UUID]:
    """The ids, by the code under which a worker failed them."""
    system.server.script(default={"kind": "text", "text": "I would rather not say.", "finish_reason": "stop"})
    cut = system.folder / "cut.png"
    cut.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
    submit = system.client.submit
    tickets = {
        "malformed_answer": submit(system.image("a"), "newsroom", batch="uploads"),
        "undecodable": submit(cut.as_uri(), POLICY, batch="uploads"),
        "host_unavailable": submit(host.uri("/status/503?token=s3cr3t"), POLICY, batch="crawl"),
        "not_found": submit(host.uri("/status/404"), POLICY, batch="crawl"),
    }
    system.wait_for_counts(failed=4)
    return {code: ticket.id for code, ticket in tickets.items()}


def test_what_failed_is_found_explained_and_judged_or_given_up(system: System) -> None:
    with ImageHost() as host:
        worker = system.worker(**HOST)
        ids = fail_in_four_ways(system, host)
        with ThreadPoolExecutor(3) as at_once:  # each is a process that takes a second to begin
            for done in [
                at_once.submit(check, system, ids)
                for check in (failures_are_grouped, failures_are_filtered, failures_are_explained)
            ]:
                done.result()
        host.photograph = (system.folder / "a.png").read_bytes()
        host.tricks["status"] = host.tricks["photo.jpg"]
        system.server.script(default={"rating": "Unsafe", "category": "O4: Nudity Content"})
        retried = vetline(system, "retry", *TWO_CODES, "--per-s", "4").stderr
        assert "retried: 2" in retried
        assert "the last of them is due in 0 s" in retried
        system.wait_for_counts(done=2, failed=2)
        assert [row(system.engine, ids[code])["attempt"] for code in TWO_CODES[1::2]] == [2, 3], (
            "none is forgotten"
        )
        system.server.script(default={"kind": "hang"})
        held = system.client.submit(system.image("held", (9, 9, 9)), POLICY).id
        wait_for(lambda: system.in_flight() == 1, what="the request in flight")
        worker.kill()
    what_a_dead_worker_held_is_freed_and_given_up(system, held, ids["not_found"])


def failures_are_grouped(system: System, _: dict[str, UUID]) -> None:
    shown = vetline(system, "failed").stdout
    for code in CODES:
        assert re.search(rf"^1\s+{code}\s+(127\.0\.0\.1)?\s+\d{{4}}-", shown, re.MULTILINE), shown
    assert "s3cr3t" not in shown
    groups = told(system, "failed", "--by", "policy", "--by", "batch")["groups"]
    assert [(group["policy"], group["batch"], group["n"]) for group in groups] == [
        (POLICY, "crawl", 2), (POLICY, "uploads", 1), ("newsroom", "uploads", 1),
    ]  # fmt: skip


def failures_are_filtered(system: System, ids: dict[str, UUID]) -> None:
    of_host = told(system, "failed", "--host", "127.0.0.1", "--code", "not_found", "--code", "undecodable")
    assert of_host["counts"] == {"not_found": 1}
    of_both = told(system, "failed", "--policy", "newsroom", "--batch", "uploads", "--newer-than", "1h")
    assert [item["id"] for item in of_both["items"]] == [str(ids["malformed_answer"])]
    assert "nothing failed that these filters mean" in vetline(system, "failed", "--older-than", "1h").stderr


def failures_are_explained(system: System, ids: dict[str, UUID]) -> None:
    shown = vetline(system, "explain", ids["malformed_answer"]).stdout
    assert "attempt 1 failed by w1: malformed_answer: " in shown
    assert shown.count("'I would rather not say.'") > 1, "each rung of the ladder, with what the model said"
    assert re.search(r"^policy text [0-9a-f]{64}$", shown, re.MULTILINE)
    story = told(system, "explain", ids["host_unavailable"])
    assert [(a["outcome"], a["error_code"]) for a in story["attempts"]] == [
        ("retried", "host_unavailable"), ("failed", "host_unavailable"),
    ]  # fmt: skip
    assert told(system, "retry", *TWO_CODES, "--dry-run") == {"would_be_retried": 2}
    assert "s3cr3t" not in story["uri"]


def what_a_dead_worker_held_is_freed_and_given_up(system: System, held: UUID, failed: UUID) -> None:
    """No worker is there to sweep. failed: one that cannot be cancelled any more."""
    wait_for(lambda: count_stuck(system.engine, after_s=60).leases == 1, what="the end of the lease")
    assert "1 whose lease ran out would be freed" in vetline(system, "requeue-stuck", "--dry-run").stderr
    assert told(system, "requeue-stuck") == {"leases": 1, "rings": 0, "dry_run": False}
    assert row(system.engine, held)["state"] == "queued"
    with ThreadPoolExecutor(1) as beside:
        again = beside.submit(told, system, "cancel", failed, code=3)
        given_up = vetline(system, "cancel", held, failed, code=3).stderr
    assert "cancelled: 1" in given_up
    assert f"{failed} has failed already" in given_up
    assert again.result() == {"cancelled": 0, "unchanged": [{"id": str(failed), "why": "has failed already"}]}
    system.wait_for_counts(done=2, failed=2, cancelled=1)
