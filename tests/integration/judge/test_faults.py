"""Each way in which SGLang fails ends as the error of its cause, in time."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from moderation.errors import (
    JudgeTimeout,
    RequestRefused,
    RuntimeFault,
    RuntimeUnavailable,
    VetlineError,
)
from moderation.verdict import Rung
from tests.support.judging import MakeJudge, ask, failing
from tests.support.sglang_server import ScriptedServer
from worker.judges.sglang import SglangJudge

REFUSALS = ["bad_request", "bad_json", "context_too_long", "too_many_tokens", "prompt_too_long"]
FAULTS = ["decompression_bomb", "preprocessing_timeout", "internal", "retracted"]


@pytest.mark.parametrize("version", ["0.5.16", "0.5.23"])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        *((name, RequestRefused) for name in REFUSALS),
        *((name, RuntimeFault) for name in FAULTS),
        ("running_timeout", JudgeTimeout),
        ("unauthorized", RuntimeUnavailable),
    ],
)
def test_error_of_the_server_becomes_the_error_of_its_cause(
    server: ScriptedServer, make: MakeJudge, version: str, error: str, kind: type[VetlineError]
) -> None:
    judge = make()
    server.script(default={"kind": "error", "error": error}, version=version)
    found = failing(judge, kind)
    assert len(server.requests) == 1
    assert [a.problem for a in found.asks] == [f"{found.code}: {found}"]
    assert "{" not in str(found)


@pytest.mark.parametrize(("version", "kind"), [("0.5.16", RuntimeFault), ("0.5.23", RequestRefused)])
def test_undecodable_image_is_told_from_a_fault_where_the_release_tells(
    server: ScriptedServer, make: MakeJudge, version: str, kind: type[VetlineError]
) -> None:
    judge = make()
    server.script(default={"kind": "error", "error": "undecodable"}, version=version)
    failing(judge, kind)


def test_refusal_keeps_the_servers_own_words(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make()
    for version in ("0.5.16", "0.5.23"):
        server.script(default={"kind": "error", "error": "context_too_long"}, version=version)
        assert "The input (20480 tokens) is longer" in str(failing(judge, RequestRefused))


def test_known_request_id_is_replaced(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make()
    server.script([{"do": {"kind": "error", "error": "duplicate_rid"}, "times": 2}])
    judgement = ask(judge)
    assert len({request.rid for request in server.requests}) == 3
    assert judgement.rung is Rung.STRICT


@pytest.mark.parametrize("error", ["queue_full", "preempted", "waiting_timeout"])
def test_busy_server_is_waited_for(server: ScriptedServer, make: MakeJudge, error: str) -> None:
    judge = make()
    server.script([{"do": {"kind": "error", "error": error}, "times": 3}])
    start = time.monotonic()
    judgement = ask(judge)
    assert judgement.rung is Rung.STRICT
    assert len(server.requests) == 4
    assert 0.3 < time.monotonic() - start < 3  # 0.1 + 0.2 + 0.4 s, give or take a half


def test_queue_that_stays_full_gives_the_item_back_uncharged(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make()
    server.script(default={"kind": "error", "error": "queue_full"})
    start = time.monotonic()
    error = failing(judge, RuntimeUnavailable, timeout_s=1)
    assert time.monotonic() - start < 1.2
    assert "queue is full" in str(error)
    server.script()
    ask(judge)
    assert "/server_info" not in server.calls  # it is still the same server


def test_closing_the_judge_ends_the_wait_for_a_full_queue(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make()
    server.script(default={"kind": "error", "error": "queue_full"})
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(failing, judge, RuntimeUnavailable, timeout_s=60)
        server.wait_until(lambda s: len(s.requests) >= 5)
        judge.close()
        waiting.result(timeout=5)


@pytest.mark.parametrize("kind", ["reset", "reset_mid_answer", "close_mid_answer"])
def test_dropped_connection_is_the_runtimes_fault_and_not_the_items(
    server: ScriptedServer, make: MakeJudge, kind: str
) -> None:
    judge = make()
    server.script(default={"kind": kind})
    error = failing(judge, RuntimeUnavailable)
    assert error.asks[0].problem is not None
    server.script()
    assert ask(judge).rung is Rung.STRICT


def test_server_that_is_not_there_is_unavailable_at_once(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make()
    server.stop_listening()
    try:
        start = time.monotonic()
        failing(judge, RuntimeUnavailable)
        with pytest.raises(RuntimeUnavailable, match="is not there"):
            judge.check()
        assert time.monotonic() - start < 1
    finally:
        server.listen()
    judge.check()
    assert ask(judge).rung is Rung.STRICT


@pytest.mark.parametrize("do", [{"kind": "abort"}, {"kind": "text", "text": "", "finish_reason": "abort"}])
def test_abort_inside_a_200_is_a_fault(server: ScriptedServer, make: MakeJudge, do: dict[str, Any]) -> None:
    judge = make()
    server.script(default=do)
    failing(judge, RuntimeFault)


@pytest.mark.parametrize("kind", ["bangs", "nan_logprobs", "garbage"])
def test_sick_model_is_a_fault_and_never_a_verdict(
    server: ScriptedServer, make: MakeJudge, kind: str
) -> None:
    judge = make()
    server.script(default={"kind": kind})
    error = failing(judge, RuntimeFault)
    assert len(server.requests) == 1
    assert "runtime_fault" in str(error.asks[0].problem)


def test_logits_that_are_nan_are_a_fault_too(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make()
    server.script(default={"kind": "nan_logprobs"}, rating_logits=True)
    assert "runtime_fault" in str(failing(judge, RuntimeFault).asks[0].problem)


def test_a_fault_in_a_later_rung_keeps_the_earlier_asks(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make()
    server.script(
        [{"when": {"ask": 1}, "do": {"kind": "malformed", "how": "fence"}}],
        default={"kind": "error", "error": "internal"},
    )
    error = failing(judge, RuntimeFault)
    assert [a.rung for a in error.asks] == [Rung.STRICT, Rung.RESEED]
    assert error.asks[0].raw is not None


def test_hung_server_ends_by_the_deadline_and_is_told_to_abort(
    server: ScriptedServer, make: MakeJudge
) -> None:
    judge = make()
    server.script(default={"kind": "hang"})
    start = time.monotonic()
    failing(judge, JudgeTimeout, timeout_s=0.5)
    assert time.monotonic() - start < 0.7
    server.wait_until(lambda s: len(s.aborts) == 1)
    assert server.aborts == (server.requests[0].rid,)


def test_the_deadline_holds_over_all_rungs_together(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make()
    server.script(default={"kind": "malformed", "how": "fence", "latency_s": 0.2})
    start = time.monotonic()
    error = failing(judge, JudgeTimeout, timeout_s=0.5)
    assert time.monotonic() - start < 0.7
    assert [a.rung for a in error.asks] == [Rung.STRICT, Rung.RESEED, Rung.GREEDY]


def test_answer_that_trickles_in_ends_by_the_deadline(make: MakeJudge, trickle: str) -> None:
    """Each byte comes in time for a read timeout; only a wall clock ends it."""
    judge = make()
    slow = SglangJudge(judge.settings.model_copy(update={"url": trickle}))
    slow._last_identity = judge._last_identity
    start = time.monotonic()
    failing(slow, JudgeTimeout, timeout_s=0.6)
    assert time.monotonic() - start < 0.9
    slow.close()


@pytest.fixture
def trickle() -> Iterator[str]:
    """A server that takes a request and sends one byte of its answer every 50 ms, without end."""
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.recv(65536)
                try:
                    peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
                    while not stop.wait(0.05):
                        peer.sendall(b" ")
                except OSError:
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    stop.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(timeout=5)
