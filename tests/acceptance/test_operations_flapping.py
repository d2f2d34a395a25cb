"""docs/operations.md on a runtime that flaps: one that becomes ready and dies, time and again, until it is mended."""

import re
from pathlib import Path

from moderation.services.child import free_port
from moderation.settings import LeaseSettings
from tests.support.ledger import row
from tests.support.pages import blocks, run_here, section, typed
from tests.support.prometheus import RULES, scraped
from tests.support.runtime_worker import Keeper, after
from tests.support.waiting import wait_for
from worker.runtime.settings import RuntimeSettings

PAGE, FLAPS = "docs/operations.md", "The runtime flaps"
DIES = after(3, {"kind": "exit"})  # its start asks three times; the first image or canary after it is its end
WAITS = 75


def test_a_runtime_that_dies_after_each_start_is_found_mended_and_its_poison_retried(
    keeper: Keeper, tmp_path: Path
) -> None:
    status, doctor, poison, retry = blocks(PAGE, FLAPS)
    port = free_port()
    ids = keeper.submit(2)
    worker = keeper.worker(DIES, ready=False, VETLINE_PROBE_PORT=str(port))
    env = keeper.system.env

    def restarts() -> float:
        return scraped(f"127.0.0.1:{port}", "vetline_runtime_restarts_total", reason="failed")

    # Three lives condemn an image: two deaths in company, one alone. A server that dies of anything condemns whatever.
    wait_for(lambda: "failed" in keeper.system.counts(), timeout_s=60, what="an image condemned")
    bound = float(re.findall(r"> (\d+)", RULES["VetlineRuntimeFlaps"]["expr"])[0])
    wait_for(lambda: restarts() > bound, timeout_s=40, what="more failures than the alert lets by")
    shown = wait_for(
        lambda: _between_two_lives(status, tmp_path, env), timeout_s=60, what="a wait that says why"
    )
    assert "SGLang ended (signal 9)" in shown
    assert worker.process.poll() is None, "it does not give up: each start became ready"
    for event in ("runtime_failed", "runtime_said", "gate_shut", "trial_started"):
        assert worker.said(event)
    rows = [row(keeper.system.engine, id_) for id_ in ids]
    assert all(standing["charged"] == 0 for standing in rows if standing["state"] == "queued")
    found = typed(doctor, tmp_path, env | {"VETLINE_RUNTIME_MODEL": str(tmp_path / "weights")}, codes=(0, 1))
    assert re.search(r"^(ok|problem) +gpu ", found, re.MULTILINE)
    assert re.search(r"^ok +weights ", found, re.MULTILINE)
    assert re.search(r"^\d+ +poison", run_here(poison, env), re.MULTILINE)

    keeper.plans({})  # mended
    wait_for(
        lambda: set(keeper.system.counts()) <= {"done", "failed"}, timeout_s=60, what="all others judged"
    )
    run_here(retry, env)
    keeper.system.wait_for_counts(done=2, timeout_s=40)
    assert {"done"} <= keeper.outcomes(ids[0])


def _between_two_lives(status: str, folder: Path, env: dict[str, str]) -> str | None:
    """What it says while it waits; None while it is ready."""
    shown = typed(status, folder, env, codes=(0, WAITS))
    return shown if "failures in a row" in shown else None


def test_the_figures_of_the_page_are_those_of_the_settings() -> None:
    told = section(PAGE, FLAPS)
    runtime, defaults = RuntimeSettings(), RuntimeSettings.model_fields
    assert (runtime.restart_delay_s, runtime.restart_cap_s, runtime.steady_s, runtime.starts) == (
        1,
        60,
        300,
        5,
    )
    assert "after 1, 2, 4 ... 60 s" in told
    assert "Five starts in a row" in told
    assert LeaseSettings().suspect_crashes == 2
    for name, default in re.findall(r"`VETLINE_RUNTIME_([A-Z_]+)` (?:from|pinned at) ([\d.]+)", told):
        assert str(defaults[name.lower()].default) == default
    for name in re.findall(r"VETLINE_RUNTIME_([A-Z_]+)", told):
        assert name.lower() in defaults
    expression = RULES["VetlineRuntimeFlaps"]["expr"]
    assert re.findall(r"\[(\w+)\]\)\) > (\d+)", expression) == [("15m", "3"), ("1h", "6")]
    assert "three times in 15 minutes, or six in an hour" in told
