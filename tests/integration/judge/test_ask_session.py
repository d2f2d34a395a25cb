"""What the sglang judge sends to a scripted SGLang over real HTTP."""

from hashlib import sha256

import pytest

from moderation.policy import builtin_policies
from moderation.verdict import Rating
from tests.support.judging import DEFAULT, NUDITY, UNSAFE, MakeJudge, ask, view
from tests.support.sglang_server import ScriptedServer
from worker.judges.prompts import Mode, digest, render


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
