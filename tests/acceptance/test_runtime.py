"""The server that a worker keeps for itself: started, watched, replaced, ended; and no item pays for it.

A scripted SGLang is started by the supervisor as its child, in place of `python -m sglang.launch_server`.
"""

from hashlib import sha256
from typing import Any

import psutil
import pytest

from moderation.ledger.activity import workers
from moderation.ledger.explain import explanation as tell_story
from tests.support.ledger import POLICY, row
from tests.support.runtime_worker import GONE_S, Keeper, after, lives
from tests.support.waiting import wait_for

ITEMS = 16
STUBBORN: dict[str, Any] = {
    "ignores_term": True,
    "leaves_child": True,
}  # the child holds the listening socket
FALLS_OVER = {"dies": 1, "says": "RuntimeError: the GPU fell over"}
CRASHES = after(7, {"kind": "exit"}, late_s=1.0, **STUBBORN)
HANGS = after(7, {"kind": "hang"}, **STUBBORN)
POOL_BREAKS = after(7, {"kind": "error", "error": "internal"})  # HTTP 500 for every image; /health says 200
SLOW = {"rules": [{"when": {"one_token": True}}], "default": {"latency_s": 0.5}}  # but quick at its start

# What happens, the lives before a good one, and within how many seconds after it all are done.
FAULTS: dict[str, tuple[list[dict[str, Any]], float]] = {
    "crashes at its start, then is late and crashes in mid-request": ([FALLS_OVER, CRASHES], 15),
    "hangs, and the next breaks its image pool": ([HANGS, POOL_BREAKS], 25),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_runtime_that_fails_is_replaced_and_no_item_pays(keeper: Keeper, name: str) -> None:
    planned, within_s = FAULTS[name]
    ids = keeper.submit(ITEMS)
    worker = keeper.worker(*planned, {})
    keeper.system.wait_for_counts(done=ITEMS, timeout_s=within_s)
    assert all(row(keeper.system.engine, id_)["charged"] == 1 for id_ in ids)
    assert all(keeper.outcomes(id_) <= {"done", "given_back", "crashed"} for id_ in ids)
    assert len(keeper.starts) == len(planned) + 1
    assert len({start.port for start in keeper.starts}) == len(keeper.starts), "a fresh port each time"
    assert worker.text.count("runtime_failed") == len(planned)
    assert worker.stop(timeout_s=20) == 0
    assert not keeper.left()


def test_a_runtime_that_leaks_or_has_judged_enough_is_drained_and_replaced(keeper: Keeper) -> None:
    ids = keeper.submit(24)
    bounds = {
        "VETLINE_RUNTIME_GROWTH_MIB": "200",
        "VETLINE_RUNTIME_RECYCLE_IMAGES": "12",
        "VETLINE_WORKER_CONCURRENCY": "4",  # more at once, and the first would have judged them all before it is drained
    }
    worker = keeper.worker({"leaks_mib": 40, "script": SLOW}, {"script": SLOW}, **bounds)
    keeper.system.wait_for_counts(done=24, timeout_s=30)
    wait_for(lambda: len(keeper.starts) >= 3, what="a third start")
    assert all(keeper.outcomes(id_) <= {"done", "given_back"} for id_ in ids), "nothing was cut off"
    assert worker.said("its memory has grown by")
    assert worker.said("it has judged 1")
    assert worker.stop(timeout_s=20) == 0
    assert not keeper.left()


def test_a_stop_takes_a_runtime_that_ignores_it_and_its_child_that_holds_the_port(keeper: Keeper) -> None:
    worker = keeper.worker(STUBBORN)
    assert keeper.left() == {keeper.starts[0].pid, *keeper.starts[0].children}
    (id_,) = keeper.submit(1)
    keeper.system.wait_for_counts(done=1)
    wait_for(
        lambda: workers(keeper.system.engine)[0]["state"] == "ready",
        what="the worker to say that it is ready",
    )
    (seen,) = workers(keeper.system.engine)
    assert (seen["runtime_state"], seen["runtime"][:10]) == ("ready", "sglang 0.5")
    verdict = (tell_story(keeper.system.engine, id_) or {})["verdict"]
    assert verdict["weights_sha256"] == sha256(b"no weights").hexdigest()
    assert verdict["model"] == str(keeper.plan.parent / "weights"), "as it was asked for"
    assert worker.stop(timeout_s=10) == 0
    assert not keeper.left()


def test_a_stop_while_the_runtime_still_starts_ends_it(keeper: Keeper) -> None:
    worker = keeper.worker({"late_s": 60}, ready=False)
    wait_for(lambda: worker.said("SGLang starts") and worker.said(" ready."), what="a start under way")
    (seen,) = wait_for(lambda: workers(keeper.system.engine), what="the worker in the ledger")
    assert (seen["state"], seen["runtime"], seen["runtime_state"]) == ("waiting", "sglang", "starting")
    assert seen["model"] == str(keeper.plan.parent / "weights")
    family = psutil.Process(worker.pid).children(recursive=True)
    assert any("sglang_child" in " ".join(process.cmdline()) for process in family)
    assert worker.stop(timeout_s=10) == 0
    assert not any(lives(process.pid) for process in family if process.is_running())


def test_a_worker_killed_takes_its_runtime_with_it(keeper: Keeper) -> None:
    worker = keeper.worker(STUBBORN)
    assert len(keeper.left()) == 2
    worker.kill()
    wait_for(lambda: not keeper.left(), timeout_s=GONE_S, what="the end of the runtime")


def test_an_image_that_kills_the_runtime_is_let_in_alone_and_set_aside(keeper: Keeper) -> None:
    poison = keeper.system.image("poison", (255, 0, 0))
    kills = sha256((keeper.system.folder / "poison.png").read_bytes()).hexdigest()
    ticket = keeper.system.client.submit(poison, POLICY)
    ids = keeper.submit(3)
    script = {
        "rules": [
            {"when": {"image": kills}, "do": {"kind": "exit", "latency_s": 0.2}},
            {"when": {"one_token": True}},  # what it is asked at its start
        ],
        "default": {"latency_s": 0.5},  # so that its neighbours are in flight with it, and suspects too
    }
    worker = keeper.worker({"script": script})
    keeper.system.wait_for_counts(done=3, failed=1, timeout_s=40)
    standing = row(keeper.system.engine, ticket.id)
    assert (standing["error_code"], standing["crashes"]) == ("poison", 2)
    assert "alone" in standing["error_detail"]
    assert "server_args" in worker.text
    assert "api_key='***'" in worker.text, "no key in the log"
    assert len(keeper.starts) in (3, 4), "two deaths in company, one alone, and perhaps the start after it"
    assert all(row(keeper.system.engine, id_)["charged"] == 1 for id_ in ids)


HOPELESS = {
    "gated": ({"dies": 1, "says": "GatedRepoError: 403 Client Error."}, 2, "accept its licence"),
    "no start in three": ({"dies": 1, "says": "RuntimeError: odd"}, 75, "3 starts in a row"),
}


@pytest.mark.parametrize("name", HOPELESS)
def test_what_another_start_would_not_mend_ends_the_worker_in_one_line(keeper: Keeper, name: str) -> None:
    life, code, says = HOPELESS[name]
    worker = keeper.worker(life, ready=False)
    assert worker.process.wait(timeout=20) == code
    (line,) = [line for line in worker.text.splitlines() if "runtime_hopeless" in line]
    assert says in line
    assert len(keeper.starts) == (3 if code == 75 else 1)
    assert workers(keeper.system.engine) == [], "it ended by itself, and is not missed"


def test_a_model_that_disagrees_with_the_canary_set_is_refused(keeper: Keeper) -> None:
    keeper.system.image("known", (1, 2, 3))
    known = keeper.system.folder / "known.jsonl"
    known.write_text('{"image": "known.png", "rating": "Unsafe"}\n')
    worker = keeper.worker({}, ready=False, VETLINE_RUNTIME_CANARY_SET=str(known))
    assert worker.process.wait(timeout=20) == 2
    assert "agrees with 0%" in worker.text
