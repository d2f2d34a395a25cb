"""The sglang judge against a scripted SGLang over real HTTP: what it sends, and what it makes of answers."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from moderation.errors import (
    BadSetting,
    JudgeTimeout,
    MalformedAnswer,
    RequestRefused,
    RuntimeFault,
    RuntimeUnavailable,
    VetlineError,
)
from moderation.policy import Category, CategoryState, PolicyRevision, builtin_policies
from moderation.verdict import Judgement, Rating, Rung
from tests.support.answer_corpus import Case, load
from tests.support.sglang_script import Rule
from tests.support.sglang_server import ScriptedServer
from worker.images.picture import View
from worker.judges.calibration import Calibration
from worker.judges.prompts import Mode, digest, render
from worker.judges.protocol import Judge
from worker.judges.settings import SglangSettings
from worker.judges.sglang import SglangJudge

DEFAULT = builtin_policies()[0]
NUDITY = "O4: Nudity Content"
UNSAFE = {
    "kind": "verdict",
    "rating": "Unsafe",
    "category": NUDITY,
    "rationale": "It shows what is forbidden.",
}
MakeJudge = Callable[..., SglangJudge]


@pytest.fixture(scope="module")
def running() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def server(running: ScriptedServer) -> ScriptedServer:
    running.script()
    running.reset()
    return running


@pytest.fixture
def make(server: ScriptedServer) -> Iterator[MakeJudge]:
    """Judges of the scripted server, checked, so that the requests on record are the judge's own."""
    made: list[SglangJudge] = []

    def make_judge(**settings: Any) -> SglangJudge:
        judge = SglangJudge(SglangSettings(**{"url": server.url, **settings}))
        made.append(judge)
        judge.check()
        server.reset()
        return judge

    yield make_judge
    for judge in made:
        judge.close()


def view(data: bytes = b"\xff\xd8\xff one picture", *, name: str = "whole") -> View:
    return View(name, data, "image/jpeg", 4, 4, sha256(data).hexdigest())


def ask(judge: Judge, data: bytes = b"\xff\xd8\xff one picture", *, timeout_s: float = 10) -> Judgement:
    return judge.judge(view(data), DEFAULT, timeout_s=timeout_s)


def failing(judge: Judge, kind: type[VetlineError], *, timeout_s: float = 10) -> VetlineError:
    with pytest.raises(kind) as caught:
        ask(judge, timeout_s=timeout_s)
    return caught.value


# --- what is sent


@pytest.mark.parametrize("mode", Mode)
def test_the_prompt_on_the_wire_is_that_of_its_mode_and_the_mode_is_kept(
    server: ScriptedServer, make: MakeJudge, mode: Mode
) -> None:
    judgement = ask(make(mode=mode))
    (request,) = server.requests
    assert request.text == render(mode, DEFAULT.prompt)
    assert judgement.template_mode == mode.value
    assert judgement.prompt_sha256 == digest(request.text)


def test_the_card_profile_is_sent_as_the_card_has_it(server: ScriptedServer, make: MakeJudge) -> None:
    judgement = ask(make())
    sent = server.requests[0].sampling
    assert (sent["temperature"], sent["top_p"], sent["top_k"], sent["max_new_tokens"]) == (0.2, 0.95, 50, 500)
    assert set(sent) == {"temperature", "top_p", "top_k", "max_new_tokens", "sampling_seed", "stop_token_ids"}
    assert judgement.sampling == {"profile": "card", **sent}


def test_card_mode_sends_no_stops_of_chatml(server: ScriptedServer, make: MakeJudge) -> None:
    ask(make(mode="card"))
    assert "stop_token_ids" not in server.requests[0].sampling


def test_the_greedy_profile_is_greedy_on_the_wire(server: ScriptedServer, make: MakeJudge) -> None:
    ask(make(profile="greedy", max_new_tokens=256))
    assert server.requests[0].sampling == {
        "temperature": 0.0,
        "max_new_tokens": 256,
        "stop_token_ids": [151645],
    }


def test_the_fast_profile_asks_for_rating_and_category_only(server: ScriptedServer, make: MakeJudge) -> None:
    server.script(default=UNSAFE)
    judgement = ask(make(profile="fast"))
    (request,) = server.requests
    assert request.text.endswith('<|im_start|>assistant\n{\n    "rating": "')
    assert request.sampling["temperature"] == 0
    assert request.sampling["stop"] == ['"rationale"']
    assert request.sampling["max_new_tokens"] < 100
    assert judgement.asks[0].completion_tokens is not None
    assert judgement.asks[0].completion_tokens < 20
    assert (judgement.rating, judgement.category, judgement.rationale) == (Rating.UNSAFE, NUDITY, "")
    assert judgement.p_unsafe == pytest.approx(0.97)
    assert judgement.sampling["profile"] == "fast"


def test_one_image_goes_as_a_data_uri_under_a_cache_key_of_its_own(
    server: ScriptedServer, make: MakeJudge
) -> None:
    judge = make()
    data = b"\xff\xd8\xff" + bytes(range(256)) * 400
    ask(judge, data)
    ask(judge, data)
    first, second = server.requests
    assert first.image_prefix == "data:image/jpeg;base64,"
    assert first.image == sha256(data).hexdigest() == first.body["extra_key"]
    assert first.body["mm_hashes"] == [first.body["extra_key"][:16]]
    assert {len(first.rid), len(second.rid)} == {32}
    assert first.rid != second.rid


def test_two_policies_on_one_image_share_the_images_cache(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make()
    ask(judge)
    second = judge.judge(view(), builtin_policies()[1], timeout_s=10)
    other = ask(judge, b"another picture")
    assert second.asks[0].cached_tokens == 14 + 2929
    assert other.asks[0].cached_tokens == 0


def test_logprobs_are_asked_for_only_where_they_are_used(server: ScriptedServer, make: MakeJudge) -> None:
    assert ask(make(p_unsafe="off")).p_unsafe is None
    assert "return_logprob" not in server.requests[0].body
    ask(make())
    assert server.requests[0].body["token_ids_logprob"] == [25663, 78770]
    assert "logprob_start_len" not in server.requests[0].body


def test_the_api_key_is_sent_and_not_shown(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make(api_key="a-secret")
    ask(judge)
    assert "a-secret" not in repr(judge.settings)


# --- the ladder


@pytest.fixture(scope="module")
def one_judge(running: ScriptedServer) -> Iterator[SglangJudge]:
    judge = SglangJudge(SglangSettings(url=running.url))
    running.script()
    judge.check()
    yield judge
    judge.close()


@pytest.mark.parametrize("case", load(), ids=lambda case: case.name)
def test_every_mangled_answer_reaches_its_rung(
    server: ScriptedServer, one_judge: SglangJudge, case: Case
) -> None:
    rules: list[Rule | dict[str, Any]] = [
        {"when": {"ask": number}, "do": {"kind": "text", "text": said.text, "finish_reason": said.finish}}
        for number, said in enumerate(case.answers, 1)
    ]
    server.script(rules, default={"kind": "verdict", "rating": "Unsafe", "category": NUDITY})
    if case.reaches == "malformed_answer":
        error = failing(one_judge, MalformedAnswer)
        assert [a.rung for a in error.asks] == [Rung.STRICT, Rung.RESEED, Rung.GREEDY, Rung.GRAMMAR]
        assert all(a.problem for a in error.asks)
        return
    judgement = ask(one_judge)
    assert judgement.rung == case.reaches
    assert len(judgement.asks) == len(server.requests)
    for key, value in case.expected.items():
        assert getattr(judgement, key) == value
    assert judgement.rationale_truncated == (judgement.rung is Rung.SALVAGE)
    if judgement.rung in (Rung.RESEED, Rung.GREEDY, Rung.GRAMMAR):
        assert judgement.rating is Rating.UNSAFE


def test_each_rung_asks_differently_and_each_ask_is_on_record(
    server: ScriptedServer, make: MakeJudge
) -> None:
    judge = make()
    server.script([{"when": {"ask": (1, 2, 3)}, "do": {"kind": "malformed", "how": "prose"}}])
    judgement = ask(judge)
    strict, reseed, greedy, grammar = (request.sampling for request in server.requests)
    assert strict["temperature"] == reseed["temperature"] == 0.2
    assert strict["sampling_seed"] != reseed["sampling_seed"]
    assert (greedy["temperature"], "regex" in greedy) == (0, False)
    assert grammar["temperature"] == 0
    assert NUDITY in grammar["regex"]
    assert judgement.rung is Rung.GRAMMAR
    assert [a.sampling for a in judgement.asks] == [strict, reseed, greedy, grammar]
    assert [a.raw is not None and a.finish_reason for a in judgement.asks] == ["stop"] * 4
    assert [bool(a.problem) for a in judgement.asks] == [True, True, True, False]
    assert all(a.elapsed_ms > 0 for a in judgement.asks)


def test_the_ladder_is_configuration(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make(ladder="strict reseed*2")
    server.script(default={"kind": "malformed", "how": "fence"})
    error = failing(judge, MalformedAnswer)
    assert [a.rung for a in error.asks] == [Rung.STRICT, Rung.RESEED, Rung.RESEED]


def test_without_salvage_a_cut_answer_is_asked_again(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make(ladder="strict reseed")
    server.script([{"when": {"ask": 1}, "do": {"kind": "cut", "tokens": 27}}])
    assert ask(judge).rung is Rung.RESEED


def test_grammar_that_the_server_refuses_is_a_rung_that_failed(
    server: ScriptedServer, make: MakeJudge
) -> None:
    judge = make()
    server.script(
        [{"when": {"grammar": True}, "do": {"kind": "error", "error": "bad_grammar"}}],
        default={"kind": "malformed", "how": "fence"},
    )
    error = failing(judge, MalformedAnswer)
    assert "Failed to compile regex grammar" in str(error.asks[-1].problem)


def test_what_a_database_cannot_keep_is_written_out(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make()
    server.script([{"when": {"ask": 1}, "do": {"kind": "text", "text": "a\0b\ud800c"}}])
    assert ask(judge).asks[0].raw == "a\\u0000b\\ud800c"


# --- rationale on demand


def test_safe_under_the_threshold_skips_the_rationale(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make(rationale="unsafe", skip_below=0.2)
    server.script(default={"kind": "verdict", "rating": "Safe", "category": NUDITY, "p_unsafe": 0.1})
    judgement = ask(judge)
    assert len(server.requests) == 1
    assert (judgement.rating, judgement.category, judgement.rationale) == (Rating.SAFE, NUDITY, "")
    assert not judgement.rationale_truncated


@pytest.mark.parametrize(
    "do",
    [
        UNSAFE,
        {"kind": "verdict", "rating": "Safe", "category": NUDITY, "p_unsafe": 0.3, "rationale": "Well."},
    ],
)
def test_unsafe_and_doubtful_answers_go_on_to_their_rationale(
    server: ScriptedServer, make: MakeJudge, do: dict[str, Any]
) -> None:
    judge = make(rationale="unsafe", skip_below=0.2)
    server.script(default=do)
    judgement = ask(judge)
    brief, rest = server.requests
    assert rest.text.startswith(brief.text)
    assert rest.text.endswith(f'{do["rating"]}",\n    "category": "{NUDITY}",\n    "rationale": "')
    assert judgement.rationale == do["rationale"]
    assert judgement.p_unsafe == pytest.approx(do.get("p_unsafe", 0.97))
    assert judgement.asks[1].cached_tokens == 14 + 2929


def test_rating_stands_where_its_rationale_cannot_be_had(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make(rationale="unsafe")
    server.script(
        [{"when": {"text": '"rationale": "'}, "do": {"kind": "text", "text": "\n\n"}}], default=UNSAFE
    )
    judgement = ask(judge)
    assert (judgement.rating, judgement.rationale, judgement.rationale_truncated) == (Rating.UNSAFE, "", True)
    assert judgement.rung is Rung.SALVAGE
    assert len(judgement.asks) == 5


def test_brief_answer_that_cannot_be_read_falls_back_to_the_whole_ladder(
    server: ScriptedServer, make: MakeJudge
) -> None:
    judge = make(rationale="never")
    server.script(
        [{"when": {"text": '{\n    "rating": "'}, "do": {"kind": "text", "text": "maybe"}}], default=UNSAFE
    )
    judgement = ask(judge)
    assert [a.rung for a in judgement.asks] == [Rung.STRICT, Rung.GRAMMAR, Rung.STRICT]
    assert judgement.rationale == UNSAFE["rationale"]


def test_brief_limit_grows_with_the_policys_longest_name(server: ScriptedServer, make: MakeJudge) -> None:
    own = Category(id="O10", name="x" * 90, state=CategoryState.CUSTOM, should_not=("Show x.",), can=())
    policy = PolicyRevision(policy="own", title="own", categories=(*DEFAULT.categories, own))
    judge = make(profile="fast")
    server.script(default={**UNSAFE, "category": own.full_name})
    assert judge.judge(view(), policy, timeout_s=10).category == own.full_name
    assert server.requests[0].sampling["max_new_tokens"] >= 16 + len(own.full_name)


# --- P(unsafe)


@pytest.mark.parametrize("original", [True, False])
@pytest.mark.parametrize("source", ["generation", "question"])
@pytest.mark.parametrize("p", [0.02, 0.4, 0.93])
def test_probability_is_the_models_own_whether_or_not_the_server_scales_it(
    server: ScriptedServer, make: MakeJudge, p: float, source: str, original: bool
) -> None:
    rating = "Unsafe" if p > 0.5 else "Safe"
    server.script(default={"kind": "verdict", "rating": rating, "p_unsafe": p}, original_logprobs=original)
    judgement = ask(make(p_unsafe=source))
    assert judgement.p_unsafe == pytest.approx(p, abs=1e-6)


def test_the_question_is_one_greedy_token_of_its_own(server: ScriptedServer, make: MakeJudge) -> None:
    judgement = ask(make(p_unsafe="question"))
    question, generation = server.requests
    assert question.sampling == {"temperature": 0.0, "max_new_tokens": 1}
    assert question.text == generation.text + '{\n    "rating": "'
    assert "return_logprob" not in generation.body
    assert [a.rung for a in judgement.asks] == [Rung.RATING, Rung.STRICT]


def test_calibration_applies_to_its_model_mode_and_policy_alone(
    server: ScriptedServer, make: MakeJudge, tmp_path: Path
) -> None:
    given = {"model": "/models/LlavaGuard-v1.2-0.5B-OV", "mode": "train", "policy": DEFAULT.ref}
    kept = Calibration(
        **given, method="platt", slope=0.5, offset=0.0, fitted_on=100, fitted_at=date(2026, 1, 2)
    )
    kept.write(tmp_path / "c.json")
    judge = make(calibration=tmp_path / "c.json")
    server.script(default={"kind": "verdict", "p_unsafe": 0.1})
    judgement = ask(judge)
    assert judgement.p_unsafe == pytest.approx(0.1)
    assert judgement.p_unsafe_calibrated == pytest.approx(0.25)
    assert judge.judge(view(), builtin_policies()[1], timeout_s=10).p_unsafe_calibrated is None
    assert ask(make(calibration=tmp_path, mode="card")).p_unsafe_calibrated is None


@pytest.mark.parametrize(
    ("p", "rating", "category", "review"),
    [
        (0.1, "Safe", NUDITY, False),
        (0.35, "Safe", NUDITY, True),  # in the band
        (0.65, "Unsafe", NUDITY, True),  # in the band
        (0.9, "Unsafe", NUDITY, False),
        (0.9, "Safe", NUDITY, True),  # drawn against its odds
        (0.1, "Unsafe", NUDITY, True),  # likewise
        (0.9, "Unsafe", "NA: None applying", True),  # for no category
    ],
)
def test_doubt_and_contradiction_need_review(
    server: ScriptedServer, make: MakeJudge, p: float, rating: str, category: str, review: bool
) -> None:
    judge = make(review_from=0.3, review_to=0.7)
    server.script(default={"kind": "verdict", "rating": rating, "category": category, "p_unsafe": p})
    judgement = ask(judge)
    assert (judgement.needs_review, judgement.rating) == (review, rating)


# --- errors, by cause

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


def test_a_fault_in_a_later_rung_keeps_the_earlier_asks(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make()
    server.script(
        [{"when": {"ask": 1}, "do": {"kind": "malformed", "how": "fence"}}],
        default={"kind": "error", "error": "internal"},
    )
    error = failing(judge, RuntimeFault)
    assert [a.rung for a in error.asks] == [Rung.STRICT, Rung.RESEED]
    assert error.asks[0].raw is not None


# --- time


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
    slow._known = judge._known
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


# --- connections


def test_connection_is_used_again_below_the_servers_keep_alive(
    server: ScriptedServer, make: MakeJudge
) -> None:
    judge = make()
    assert judge.settings.keep_alive_s < 5
    before = server.connections
    for _ in range(5):
        ask(judge)
    assert len({request.connection for request in server.requests}) == 1
    assert server.connections <= before + 1


def test_connection_that_carried_a_500_is_not_used_again(server: ScriptedServer, make: MakeJudge) -> None:
    """The real server may never read from it again."""
    judge = make()
    server.script([{"do": {"kind": "error", "error": "internal"}, "times": 1}])
    failing(judge, RuntimeFault)
    assert ask(judge, timeout_s=3).rung is Rung.STRICT
    first, second = (request.connection for request in server.requests)
    assert first != second


def test_connection_that_the_server_let_go_is_noticed(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make(keep_alive_s=60)
    server.script(keep_alive_s=0.05)
    ask(judge)
    server.wait_until(lambda s: s.open_connections == 0)
    assert ask(judge).rung is Rung.STRICT


def test_128_threads_share_one_judge(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make()
    server.script(
        [{"when": {"share": 0.3, "ask": 1}, "do": {"kind": "malformed", "how": "fence", "latency_s": 0.05}}],
        default={"kind": "verdict", "rating": "Unsafe", "category": NUDITY, "latency_s": 0.05},
    )
    pictures = [f"picture {n}".encode() for n in range(256)]
    with ThreadPoolExecutor(128) as pool:
        found = list(pool.map(lambda data: ask(judge, data, timeout_s=30), pictures))
    assert {judgement.rating for judgement in found} == {Rating.UNSAFE}
    assert len({request.image for request in server.requests}) == 256
    assert len({request.rid for request in server.requests}) == len(server.requests)
    assert len({request.connection for request in server.requests}) < len(server.requests) / 2


# --- the server's identity


def test_check_refuses_a_server_that_would_judge_without_the_image(server: ScriptedServer) -> None:
    server.script(image_token_id=None)
    judge = SglangJudge(SglangSettings(url=server.url))
    with pytest.raises(BadSetting, match=r"would judge without the image") as caught:
        judge.check()
    assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeUnavailable, match="without the image"):
        ask(judge)
    assert not any(request.image for request in server.requests)
    judge.close()


def test_server_that_is_starting_is_unavailable(server: ScriptedServer) -> None:
    server.script(health=503)
    judge = SglangJudge(SglangSettings(url=server.url))
    with pytest.raises(RuntimeUnavailable, match="503"):
        judge.check()
    judge.close()


def test_identity_is_asked_once_for_each_start_of_the_server(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make()
    for _ in range(3):
        judge.check()
        ask(judge)
    assert server.calls.count("/server_info") == 0
    server.stop_listening()
    server.script(version="0.5.16", model_path="/models/other")
    failing(judge, RuntimeUnavailable)
    server.listen()
    judgement = ask(judge)
    assert (judgement.runtime_version, judgement.model) == ("0.5.16", "/models/other")
    assert server.calls.count("/server_info") == 1


def test_judgement_says_what_explains_it(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make(weights_sha256="ab" * 32)
    judgement = ask(judge)
    assert (judgement.judge, judgement.runtime, judgement.runtime_version) == ("sglang", "sglang", "0.5.23")
    assert judgement.model == "/models/LlavaGuard-v1.2-0.5B-OV"
    assert judgement.weights_sha256 == "ab" * 32
    assert judgement.finish_reason == "stop"
    assert judgement.raw_output is not None
    assert judgement.raw_output.startswith('{\n    "rating": "Safe"')
    assert judgement.asks[0].prompt_tokens is not None


def test_what_is_no_sglang_is_unavailable_and_not_a_crash(server: ScriptedServer) -> None:
    judge = SglangJudge(SglangSettings(url=server.url + "/elsewhere"))
    with pytest.raises(RuntimeUnavailable, match="404"):
        judge.check()
    judge.close()


def test_the_view_is_named_in_each_ask(server: ScriptedServer, make: MakeJudge) -> None:
    judgement = make().judge(view(name="frame 0"), DEFAULT, timeout_s=10)
    assert [a.view for a in judgement.asks] == ["frame 0"]
