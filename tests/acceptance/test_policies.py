"""Policies in the life of a platform: one image under several, then an edit, and what the edit changed."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from moderation.ledger import queries
from moderation.ledger.registry import find
from tests.acceptance.conftest import System
from tests.support.commands import run
from tests.support.conservation import violations
from tests.support.ledger import attempts, row
from tests.support.sglang_requests import Recorded
from tests.support.sglang_runtime import SYSTEM_TOKENS
from tests.support.waiting import wait_for

THREE = ["llavaguard-default", "newsroom", "strict"]
FILE = "policy: city-news\ntitle: City news desk\ncategories:\n  O2: non-violating\n"
NUDITY, CRIME = "O4: Nudity Content", "O5: Criminal Planning"

pytestmark = pytest.mark.timeout(180)


def prompt(system: System, ref: str) -> str:
    return find(system.engine, ref).content.prompt.strip()


def about_images(system: System) -> list[Recorded]:
    return [request for request in system.server.requests if request.image is not None]


def answered(folder: Path, *words: str) -> Any:
    """What a command says as JSON."""
    ended = run(folder, *words, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_one_image_under_three_policies_is_read_by_the_model_once(system: System, tmp_path: Path) -> None:
    system.image("a")
    system.server.script(default={"latency_s": 0.2})
    named = [word for policy in THREE for word in ("--policy", policy)]
    told = answered(tmp_path, "enqueue", "a.png", *named)
    assert told == {"accepted": 3, "known": 0, "cancelled": 0, "refused": 0}
    system.worker()
    system.wait_for_counts(done=3)
    first, second, third = about_images(system)
    for request, policy in zip((first, second, third), THREE, strict=True):
        assert prompt(system, policy) in request.text
    assert first.cached_tokens == 0
    assert (
        second.cached_tokens
        == third.cached_tokens
        == SYSTEM_TOKENS + system.server.runtime.player.script.image_tokens
    )
    assert {request.body["extra_key"] for request in (first, second, third)} == {first.image}
    for before, after in ((first, second), (second, third)):
        assert before.answered_at_s is not None
        assert before.answered_at_s <= after.at_s, "one after the other: the prefix must be in the cache"
    policies = {row["policy"] for row in queries.verdicts(system.engine)}
    assert policies == {f"{policy}@1" for policy in THREE}
    assert answered(tmp_path, "enqueue", "a.png", *named) == {
        "accepted": 0,
        "known": 3,
        "cancelled": 0,
        "refused": 0,
    }


def test_a_worker_killed_between_siblings_loses_none_and_only_those_left_are_judged_again(
    system: System,
) -> None:
    first_worker = system.worker()
    system.server.script([{"when": {"text": prompt(system, "newsroom")}, "do": {"kind": "hang"}}])
    tickets = system.client.submit_under(system.image("a"), THREE)
    wait_for(lambda: len(about_images(system)) == 2, what="the second asked about")
    wait_for(lambda: row(system.engine, tickets[0].id)["state"] == "done", what="the first's verdict written")
    for ticket in tickets[1:]:
        lease = row(system.engine, ticket.id)["lease_until"]
        wait_for(
            lambda t=ticket, was=lease: row(system.engine, t.id)["lease_until"] > was, what="a heartbeat"
        )
    first_worker.kill()
    system.server.script()
    system.worker()
    system.wait_for_counts(done=3)
    outcomes = [[a["outcome"] for a in attempts(system.engine, ticket.id)] for ticket in tickets]
    assert outcomes == [["done"], ["crashed", "done"], ["crashed", "done"]]
    assert violations(system.engine, [ticket.id for ticket in tickets]) == []


def test_an_edit_is_judged_again_and_its_impact_reported(system: System, tmp_path: Path) -> None:
    system.worker()
    (tmp_path / "city-news.yaml").write_text(FILE)
    assert answered(tmp_path, "policy", "add", "city-news.yaml", "--by", "anna")["policy"] == "city-news@1"
    images = {name: system.image(name, (n * 40, 80, 40)) for n, name in enumerate("abcd")}
    digests = {name: sha256((tmp_path / f"{name}.png").read_bytes()).hexdigest() for name in images}
    system.server.script([{"when": {"image": digests["b"]}, "do": {"rating": "Unsafe", "category": NUDITY}}])
    system.client.submit_many(images.values(), "city-news", batch="first")
    system.wait_for_counts(done=4)

    (tmp_path / "city-news.yaml").write_text(FILE + "  O5: sensitive\n")
    edited = answered(
        tmp_path, "policy", "add", "city-news.yaml", "--by", "ben", "--reason", "the board asked"
    )
    assert edited["policy"] == "city-news@2"
    now = prompt(system, "city-news@2")
    system.server.script(
        [
            {"when": {"text": now, "image": digests["a"]}, "do": {"rating": "Unsafe", "category": CRIME}},
            {"when": {"text": now, "image": digests["d"]}, "do": {"kind": "text", "text": "I cannot say."}},
        ],
        default={"rating": "Safe"},
    )
    change = ("--from", "1", "--to", "2")
    assert answered(tmp_path, "reassess", "--policy", "city-news", *change)["queued"] == 4
    system.wait_for_counts(done=7, failed=1)
    assert answered(tmp_path, "reassess", "--policy", "city-news", *change)["known"] == 4
    found = answered(tmp_path, "policy", "impact", "city-news", *change)
    items = found.pop("items")
    assert found == {
        "from": "city-news@1",
        "to": "city-news@2",
        "verdicts": 4,
        "reassessed": 4,
        "judged": 3,
        "safe_to_unsafe": {"count": 1, "categories": {CRIME: 1}},
        "unsafe_to_safe": {"count": 1, "categories": {NUDITY: 1}},
        "still_safe": 1,
        "still_unsafe": 0,
        "still_unsafe_other_category": 0,
        "open": 0,
        "failed": {"malformed_answer": 1},
        "cancelled": 0,
        "image_changed": 0,
        "items_left_out": 0,
    }
    flips = {(Path(item["uri"]).stem, item["rating_before"], item["rating_after"]) for item in items}
    assert flips == {("a", "Safe", "Unsafe"), ("b", "Unsafe", "Safe")}
