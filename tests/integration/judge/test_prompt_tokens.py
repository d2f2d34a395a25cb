"""Prompts as token ids: what goes over the wire, how often the server is asked for them, and when text goes instead."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import pytest
from structlog.testing import capture_logs

from intake.picture import View
from moderation.errors import RuntimeUnavailable
from moderation.policy import builtin_policies
from moderation.verdict import Judgement, Rating
from tests.support.judging import MakeJudge
from tests.support.sglang_answers import tokenise
from tests.support.sglang_server import ScriptedServer
from worker.judges import prompt_tokens
from worker.judges.prompts import Mode, digest, render
from worker.judges.sglang import SglangJudge

DEFAULT, SECOND = builtin_policies()[:2]
PROMPT = render(Mode.TRAIN, DEFAULT.prompt)


def ask(judge: SglangJudge, number: int = 0, policy: Any = DEFAULT) -> Judgement:
    data = b"\xff\xd8\xff picture %d" % number
    view = View("whole", data, "image/jpeg", 4, 4, sha256(data).hexdigest())
    return judge.judge(view, policy, timeout_s=10)


def test_the_ids_on_the_wire_are_the_servers_own_and_the_digest_is_the_texts(
    server: ScriptedServer, make: MakeJudge
) -> None:
    judgement = ask(make())
    (request,) = server.requests
    assert request.body["input_ids"] == list(tokenise(PROMPT, 151646))
    assert request.body["input_ids"].count(151646) == 1
    assert judgement.prompt_sha256 == digest(PROMPT)


def test_a_prompt_is_tokenised_once_however_many_images_and_threads_ask(
    server: ScriptedServer, make: MakeJudge
) -> None:
    judge = make()
    together = threading.Barrier(16)

    def one(number: int) -> Judgement:
        together.wait()
        return ask(judge, number)

    with ThreadPoolExecutor(16) as pool:
        ratings = {judgement.rating for judgement in pool.map(one, range(16))}
    assert ratings == {Rating.SAFE}
    assert server.calls.count("/tokenize") == 1
    ask(judge, 0, SECOND)
    assert server.calls.count("/tokenize") == 2


def test_a_server_that_was_started_anew_is_asked_anew(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make()
    ask(judge)
    server.stop_listening()
    with pytest.raises(RuntimeUnavailable):
        ask(judge)
    server.listen()
    judge.check()
    server.reset()
    ask(judge)
    assert server.calls == ("/tokenize", "/generate")


def test_ids_are_asked_for_again_after_their_time(
    server: ScriptedServer, make: MakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_tokens, "KEPT_S", -1.0)
    judge = make()
    ask(judge)
    ask(judge)
    assert server.calls.count("/tokenize") == 2


def test_text_goes_where_it_is_asked_for(server: ScriptedServer, make: MakeJudge) -> None:
    ask(make(prompt_as="text"))
    assert "input_ids" not in server.requests[0].body
    assert server.calls == ("/generate",)


def test_text_goes_with_one_warning_where_the_server_gives_no_ids(
    server: ScriptedServer, make: MakeJudge
) -> None:
    judge = make()
    server.script(tokenize=500)
    with capture_logs() as logs:
        first = ask(judge)
        ask(judge, 1, SECOND)
    assert all("input_ids" not in request.body for request in server.requests)
    assert [line["log_level"] for line in logs if line["event"] == "prompt_sent_as_text"] == [
        "warning",
        "debug",
    ]
    assert first.prompt_sha256 == digest(PROMPT)


def test_text_goes_where_the_ids_would_hide_the_image(server: ScriptedServer, make: MakeJudge) -> None:
    judge = make()
    server.script(image_token_id=None)
    ask(judge)
    assert "input_ids" not in server.requests[0].body


def test_the_body_is_json_with_and_without_an_image() -> None:
    from worker.judges.sglang_client import EncodedImage, Request

    ids, image = b"[1,151646]", EncodedImage.of(b"abc", "image/png")
    whole = json.loads(Request("x", {"n": 1}, image, (3,), ids).body("r"))
    assert (whole["input_ids"], whole["image_data"]) == ([1, 151646], "data:image/png;base64,YWJj")
    assert "text" not in whole
    assert json.loads(Request("x", {}).body("r")) == {"rid": "r", "sampling_params": {}, "text": "x"}
    assert json.loads(Request("x", {}, text_ids=ids).body("r"))["input_ids"] == [1, 151646]
