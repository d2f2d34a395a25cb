"""A worker's child processes: decoders, and that of an isolated run. None outlives it, and a stop condemns nothing."""

import os
import signal
from pathlib import Path
from uuid import UUID

import pytest

from moderation.assessment import State
from moderation.errors import RuntimeCrashed
from moderation.ledger.outcomes import give_back_crashed
from tests.acceptance.conftest import System
from tests.support.ledger import POLICY, attempts, claimed, row
from tests.support.waiting import wait_for
from tests.support.worker import RunningWorker

GONE_S = 5.0  # from a worker's death to the end of the last process that it started


def family(worker: RunningWorker) -> set[int]:
    """The living processes of a worker's session, itself among them: it started in one of its own."""
    return {int(entry.name) for entry in Path("/proc").iterdir() if _is_of(entry, worker.pid)}


def _is_of(entry: Path, session: int) -> bool:
    if not entry.name.isdigit():
        return False
    try:
        state, _, _, its_session, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(its_session) == session and state not in "ZX"


def a_suspect(system: System) -> UUID:
    """An image that was in hand at two deaths: it is tried in a child of its own."""
    id_ = system.client.submit(system.image("suspect"), POLICY).id
    for _ in range(2):
        died = claimed(system.engine, id_, worker="died")
        give_back_crashed(system.engine, died, RuntimeCrashed("gone"), worker="died")
    return id_


def in_trial(system: System) -> tuple[RunningWorker, UUID]:
    """A worker whose isolated run child waits for an answer that does not come."""
    # What a judge asks to know its server has one token of answer; an image's verdict has many.
    system.server.script([{"when": {"one_token": False}, "do": {"kind": "hang"}}])
    id_ = a_suspect(system)
    worker = system.worker(VETLINE_WORKER_DRAIN_S="3")
    wait_for(lambda: worker.said("trial_started") and system.in_flight() == 1, what="a trial at the judge")
    return worker, id_


def test_the_decoders_of_a_killed_worker_end_with_it(system: System) -> None:
    worker = system.worker()
    for n in range(8):
        system.client.submit(system.image(f"i{n}", (n, n, n)), POLICY)
    system.wait_for_counts(done=8)
    assert len(family(worker)) > 1, "decoders wait for the next image"
    worker.kill()
    wait_for(lambda: not family(worker), timeout_s=GONE_S, what="the end of its children")


def test_the_trial_of_a_killed_worker_ends_with_it_though_it_waits_for_the_judge(system: System) -> None:
    worker, id_ = in_trial(system)
    assert len(family(worker)) >= 3, "the worker, the trial's child, its decoder"
    worker.kill()
    wait_for(lambda: not family(worker), timeout_s=GONE_S, what="the end of its children")
    assert row(system.engine, id_)["state"] == State.RUNNING, "until its lease is over"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_that_reaches_every_process_condemns_no_suspect(
    system: System, number: signal.Signals
) -> None:
    """As systemd stops a service, and a terminal what runs in it."""
    worker, id_ = in_trial(system)
    for pid in family(worker):
        os.kill(pid, number)
    worker.process.wait(timeout=15)
    wait_for(lambda: not family(worker), timeout_s=GONE_S, what="the end of its children")
    standing = row(system.engine, id_)
    assert (standing["state"], standing["charged"], standing["crashes"]) == (State.QUEUED, 0, 2)
    assert [a["outcome"] for a in attempts(system.engine, id_)] == ["crashed", "crashed", "given_back"]
