"""Pause and resume, as an operator types them, over a real worker. About 8 s."""

import json
import time
from pathlib import Path

from tests.acceptance.conftest import System
from tests.support.commands import run
from tests.support.ledger import POLICY
from tests.support.waiting import wait_for

_EFFECTIVE_S = 2.0  # what is promised


def test_a_pause_holds_for_claims_within_two_seconds_and_a_resume_loses_nothing(
    system: System, tmp_path: Path
) -> None:
    system.worker()
    # So that much is left when a busy machine has typed the command.
    system.server.script(default={"latency_s": 0.6})
    uris = [system.image(f"i{n}", (n, n, n)) for n in range(80)]
    ids = [system.client.submit(uri, POLICY, batch="b").id for uri in uris]
    wait_for(lambda: system.counts().get("done", 0) >= 5, what="the batch under way")
    said = run(tmp_path, "pause", "--batch", "b", "--reason", "a bad bucket", "--json")
    assert json.loads(said.stdout) == {"scope": "batch", "name": "b", "changed": True}
    paused_at = time.monotonic()
    wait_for(lambda: system.counts().get("running", 0) == 0, what="what ran has ended")
    while (
        time.monotonic() < paused_at + _EFFECTIVE_S
    ):  # a bound that is the point: nothing is claimed after it
        time.sleep(0.1)
    standing = system.counts()
    assert standing["queued"] > 0
    other = system.client.submit(system.image("other"), POLICY, batch="c").id
    wait_for(lambda: system.counts()["done"] == standing.get("done", 0) + 1, what="the other batch's image")
    assert system.counts() == standing | {"done": standing["done"] + 1}
    status = run(tmp_path, "status")
    assert "paused: batch b, by " in status.stdout
    assert "a bad bucket" in status.stdout
    (told,) = json.loads(run(tmp_path, "status", "--json").stdout)["pauses"]
    assert (told["scope"], told["name"]) == ("batch", "b")
    system.server.script(default={"latency_s": 0.0})
    assert run(tmp_path, "resume", "--batch", "b").returncode == 0
    system.wait_for_counts(done=len(ids) + 1)
    assert other not in ids


def test_what_is_paused_can_be_cancelled_and_caps_are_listed(system: System, tmp_path: Path) -> None:
    assert run(tmp_path, "pause", "--all").returncode == 0
    system.client.submit_many([system.image("a")] * 3, POLICY, batch="b")
    assert json.loads(run(tmp_path, "cancel", "--batch", "b", "--json").stdout) == {"cancelled": 3}
    assert run(tmp_path, "cap", "5", "--tenant", "acme").returncode == 0
    for words in (["cap", "--json"], ["status", "--json"]):
        (cap,) = json.loads(run(tmp_path, *words).stdout)["caps"]
        assert (cap["scope"], cap["name"], cap["in_hand"]) == ("tenant", "acme", 5)
    assert "capped: tenant acme at 5, by " in run(tmp_path, "status").stdout
    assert run(tmp_path, "cap", "--lift", "--tenant", "acme").returncode == 0
    for words, said in (
        (["pause"], "only one: --batch, --policy, --tenant or --all"),
        (["pause", "--batch", "b", "--all"], "only one: --batch, --policy, --tenant or --all"),
        (["cap", "5"], "only one: --batch or --tenant\n"),
        (["cap", "0", "--batch", "b"], "1"),
    ):
        ended = run(tmp_path, *words)
        assert ended.returncode == 2
        assert said in ended.stderr
