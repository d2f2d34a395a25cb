"""Connections to SGLang are used again where that is safe, and its identity is known."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from moderation.errors import (
    BadSetting,
    RuntimeFault,
    RuntimeUnavailable,
)
from moderation.verdict import Rating, Rung
from tests.support.judging import DEFAULT, NUDITY, MakeJudge, ask, failing, view
from tests.support.sglang_server import ScriptedServer
from worker.judges.settings import SglangSettings
from worker.judges.sglang import SglangJudge


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
