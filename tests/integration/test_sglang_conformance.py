"""The sglang judge against a real SGLang: the protocol, the errors and the limits are real, the answers may be noise.

VETLINE_TEST_SGLANG_CPU=FOLDER  starts a CPU server of its own from FOLDER (see tests/support/sglang_cpu.py)
VETLINE_TEST_SGLANG_URL=URL     uses a server that runs already; what needs a server of its own is skipped

pytest -m sglang tests/integration/test_sglang_conformance.py
"""

import json
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from intake.picture import View
from moderation.errors import JudgeTimeout, MalformedAnswer, RequestRefused, RuntimeFault, RuntimeUnavailable
from moderation.policy import Category, CategoryState, PolicyRevision, builtin_policies
from moderation.verdict import Judgement, Rating, Rung
from tests.support.sglang_cpu import CpuServer
from worker.judges import grammar
from worker.judges.deadline import Deadline
from worker.judges.generation import Generation
from worker.judges.prompt_tokens import PromptTokens
from worker.judges.prompts import Mode, render
from worker.judges.server_identity import identify
from worker.judges.settings import SglangSettings
from worker.judges.sglang import SglangJudge
from worker.judges.sglang_client import EncodedImage, Request, SglangClient

FOLDER = os.environ.get("VETLINE_TEST_SGLANG_CPU")
URL = os.environ.get("VETLINE_TEST_SGLANG_URL")
WHY = (
    "no real SGLang: set VETLINE_TEST_SGLANG_CPU to a folder with one, or VETLINE_TEST_SGLANG_URL to a server"
)

pytestmark = [
    pytest.mark.sglang,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (FOLDER or URL), reason=WHY),
]
owned = pytest.mark.skipif(not FOLDER, reason="needs a server of its own: set VETLINE_TEST_SGLANG_CPU")

DEFAULT = builtin_policies()[0]
MakeJudge = Callable[..., SglangJudge]


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CpuServer | None]:
    if not FOLDER:
        yield None
        return
    log = tmp_path_factory.mktemp("sglang") / "server.log"
    with CpuServer(Path(FOLDER), log, "--max-running-requests", "2", "--max-queued-requests", "2") as server:
        yield server


@pytest.fixture(scope="module")
def url(own_server: CpuServer | None) -> str:
    return own_server.url if own_server else str(URL)


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[SglangClient]:
    made = SglangClient(url)
    yield made
    made.close()


@pytest.fixture
def make(url: str) -> Iterator[MakeJudge]:
    made: list[SglangJudge] = []

    def make_judge(**settings: object) -> SglangJudge:
        judge = SglangJudge(SglangSettings.model_validate({"url": url, "max_new_tokens": 96, **settings}))
        made.append(judge)
        return judge

    yield make_judge
    for judge in made:
        judge.close()


def png(width: int, height: int, *, shade: int = 0) -> bytes:
    """A grey PNG with a gradient."""
    rows = b"".join(b"\0" + bytes((x + y + shade) % 256 for x in range(width)) for y in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


PICTURE = png(336, 336)


def view(data: bytes = PICTURE) -> View:
    return View("whole", data, "image/png", 336, 336, sha256(data).hexdigest())


def ask(judge: SglangJudge, *, timeout_s: float = 200) -> Judgement:
    return judge.judge(view(), DEFAULT, timeout_s=timeout_s)


def soon() -> Deadline:
    return Deadline.after(60)


def request(text: str, **sampling: object) -> Request:
    return Request(
        text, {"temperature": 0, "max_new_tokens": 1, **sampling}, EncodedImage.of(PICTURE, "image/png")
    )


def test_the_server_is_what_the_judge_needs(make: MakeJudge, client: SglangClient) -> None:
    make().check()
    found = identify(client, deadline=soon())
    assert found.version.startswith("0.5.")
    assert found.model


@pytest.mark.parametrize(("mode", "tokens"), [(Mode.TRAIN, 1129), (Mode.CARD_CHATML, 1129)])
def test_the_prompt_has_the_tokens_of_training(client: SglangClient, mode: Mode, tokens: int) -> None:
    found = client.tokenize(render(mode, DEFAULT.prompt), deadline=soon())
    assert len(found) == tokens
    assert found.count(151646) == 1


def test_the_template_joins_where_training_had_a_token_border(client: SglangClient) -> None:
    whole = client.tokenize(f"{grammar.OPENING}Unsafe", deadline=soon())
    assert whole == [*client.tokenize(grammar.OPENING, deadline=soon()), 78770]
    assert client.tokenize(f"{grammar.OPENING}Safe", deadline=soon())[-1] == 25663


def test_the_image_stands_where_its_token_stood(client: SglangClient) -> None:
    text = render(Mode.TRAIN, DEFAULT.prompt)
    found = client.generate(request(text), deadline=soon())
    assert found.prompt_tokens == 1128 + 1485  # a 336x336 image under anyres_max_9 in a 1x1 grid
    assert found.completion_tokens == 1


def _flat(generation: Generation) -> list[float]:
    return [entry[0] for position in generation.logprobs for entry in position]


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("opening", ["", grammar.OPENING])
def test_a_prompt_as_ids_is_read_as_the_same_prompt_as_text(
    client: SglangClient, mode: Mode, opening: str
) -> None:
    """The same tokens out with the same logprobs in one cache: the second finds the first's whole prompt there."""
    text = render(mode, DEFAULT.prompt) + opening
    asked = replace(request(text, max_new_tokens=8), logprob_ids=(25663, 78770))
    ids = PromptTokens(client).of(text, deadline=soon())
    assert ids is not None
    as_text = client.generate(asked, deadline=soon())
    as_ids = client.generate(replace(asked, text_ids=ids), deadline=soon())
    assert (as_ids.output_ids, as_ids.text) == (as_text.output_ids, as_text.text)
    both = zip(_flat(as_ids), _flat(as_text), strict=True)
    assert all(abs(a - b) < 5e-3 for a, b in both)  # what is in the cache makes another batch shape
    assert as_ids.prompt_tokens == as_text.prompt_tokens
    assert as_ids.cached_tokens == (as_text.prompt_tokens or 0) - 1


def test_every_image_ends_as_a_verdict_or_malformed_and_every_ask_is_kept(make: MakeJudge) -> None:
    judge = make()
    try:
        asks = ask(judge).asks
    except MalformedAnswer as error:
        asks = error.asks
    assert asks
    assert all(a.raw is not None and a.finish_reason in ("stop", "length") for a in asks)
    assert all(a.elapsed_ms > 0 and a.prompt_tokens and a.completion_tokens for a in asks)
    assert all(a.sampling["max_new_tokens"] == 96 for a in asks)


def test_the_grammar_makes_even_noise_answer_in_the_template(make: MakeJudge) -> None:
    judgement = ask(make())
    assert judgement.rating in (Rating.SAFE, Rating.UNSAFE)
    assert judgement.category in DEFAULT.category_names
    last = judgement.asks[-1]
    assert (last.raw or "").startswith('{\n    "rating": "')


def test_rating_and_category_alone_take_few_tokens(make: MakeJudge) -> None:
    judgement = ask(make(profile="fast"))
    assert judgement.category in DEFAULT.category_names
    assert judgement.rationale == ""
    assert (judgement.asks[-1].completion_tokens or 999) <= 64
    assert judgement.rung in (Rung.STRICT, Rung.GRAMMAR)


def test_the_question_gives_a_probability(make: MakeJudge) -> None:
    judgement = ask(make(p_unsafe="question"))
    assert judgement.p_unsafe is not None
    assert 0 < judgement.p_unsafe < 1
    assert judgement.asks[0].rung is Rung.RATING
    assert judgement.asks[0].completion_tokens == 1


def test_a_grammar_of_odd_names_is_taken_and_kept_to(client: SglangClient) -> None:
    names = ("O10: Münzen (alt) [1.0]", "O11: a.b*c+d?e^f$g/h-i {j}", "NA: None applying")
    asked = request("Judge.\n" + grammar.OPENING, max_new_tokens=64, regex=grammar.brief_pattern(names))
    found = client.generate(asked, deadline=soon())
    assert found.finish_reason == "stop"
    answer = json.loads(grammar.OPENING + found.text.rstrip().rstrip(",") + "}")
    assert answer["category"] in names


def test_an_image_never_shares_a_cache_entry_with_another(client: SglangClient) -> None:
    text = render(Mode.TRAIN, DEFAULT.prompt)
    images = [EncodedImage.of(data, "image/png") for data in (PICTURE, PICTURE, png(336, 336, shade=90))]
    asked = [Request(text, {"temperature": 0, "max_new_tokens": 1}, image) for image in images]
    found = [client.generate(each, deadline=soon()) for each in asked]
    assert (found[1].cached_tokens or 0) > 1485
    assert found[2].cached_tokens == 0


def test_a_second_policy_reuses_the_image(make: MakeJudge) -> None:
    judge = make(profile="fast")
    ask(judge)
    second = judge.judge(view(), builtin_policies()[1], timeout_s=100)
    assert (second.asks[0].cached_tokens or 0) >= 1485


def test_a_policy_with_names_of_its_own_is_judged_by_them(make: MakeJudge) -> None:
    own = Category(
        id="O10", name="Alte Münzen", state=CategoryState.CUSTOM, should_not=("Show coins.",), can=()
    )
    policy = PolicyRevision(policy="own", title="own", categories=(*DEFAULT.categories, own))
    judgement = make(profile="fast").judge(view(), policy, timeout_s=100)
    assert judgement.category in policy.category_names


# --- errors


def test_context_too_long_is_refused_in_the_servers_words(client: SglangClient) -> None:
    with pytest.raises(RequestRefused, match="longer than the model's context length"):
        client.generate(request("word " * 20_000), deadline=soon())


def test_more_tokens_than_fit_are_refused(client: SglangClient) -> None:
    with pytest.raises(RequestRefused, match="exceeds the model's maximum context length"):
        client.generate(request("word", max_new_tokens=40_000), deadline=soon())


def test_bad_parameters_are_refused(client: SglangClient) -> None:
    with pytest.raises(RequestRefused, match="temperature"):
        client.generate(request("<image>", temperature=-1), deadline=soon())


def test_a_grammar_that_is_none_is_refused(client: SglangClient) -> None:
    with pytest.raises(RequestRefused, match="Failed to compile"):
        client.generate(request("<image>", regex="((("), deadline=soon())


@pytest.mark.parametrize("data", [b"no image at all", PICTURE[: len(PICTURE) // 2]])
def test_undecodable_image_is_refused(client: SglangClient, data: bytes) -> None:
    asked = Request("<image>", {"max_new_tokens": 1}, EncodedImage.of(data, "image/png"))
    with pytest.raises(RequestRefused, match="Error while processing image"):
        client.generate(asked, deadline=soon())


def test_request_id_in_flight_is_known_as_a_duplicate(client: SglangClient) -> None:
    rid = "ab" * 16
    body = request("Count.", max_new_tokens=400, ignore_eos=True).body(rid)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(client.call, "POST", "/generate", body, deadline=soon()) for _ in range(2)]
        replies = sorted((each.result() for each in both), key=lambda reply: reply.status)
    assert [reply.status for reply in replies] == [200, 400]
    assert b"Duplicate request ID" in replies[1].body


def test_after_a_500_the_next_ask_is_answered(client: SglangClient) -> None:
    """On 0.5.23 the connection of a 500 is dead, though it may look open."""
    body = json.dumps(
        {"text": "<image>", "image_data": "/9j/4AAQ", "sampling_params": {"max_new_tokens": 1}}
    ).encode()
    for _ in range(3):
        reply = client.call("POST", "/generate", body, deadline=soon())
        assert reply.status == 500
        assert client.generate(request("<image>"), deadline=Deadline.after(30)).completion_tokens == 1


def test_deadline_ends_the_wait_and_the_servers_work(client: SglangClient) -> None:
    start = time.monotonic()
    with pytest.raises(JudgeTimeout):
        client.generate(
            Request("Count.", {"max_new_tokens": 9000, "ignore_eos": True}), deadline=Deadline.after(1)
        )
    assert time.monotonic() - start < 1.5
    until = Deadline.after(3)  # without the abort, SGLang looks for lost clients every 4 s
    while client.get("/v1/loads", deadline=soon())["loads"][0]["num_running_reqs"]:
        assert until.left_s() > 0, "the server goes on with a request that nobody waits for"
        time.sleep(0.05)  # the server tells of its load only when asked


@owned
def test_full_queue_is_waited_for(client: SglangClient) -> None:
    """The server runs two requests and queues two; twelve come at once."""

    def one(n: int) -> int | None:
        asked = Request(f"Count to {n}.", {"max_new_tokens": 60, "ignore_eos": True})
        return client.generate(asked, deadline=Deadline.after(120)).completion_tokens

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(one, range(12))) == [60] * 12


@owned
def test_full_queue_is_told_by_503(client: SglangClient) -> None:
    bodies = [
        Request(f"Count {n}.", {"max_new_tokens": 200, "ignore_eos": True}).body(f"{n:032x}")
        for n in range(12)
    ]
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda body: client.call("POST", "/generate", body, deadline=soon()), bodies))
    assert {reply.status for reply in replies} == {200, 503}
    assert any(b"The request queue is full." in reply.body for reply in replies)


@owned
def test_server_killed_while_judging_is_unavailable_and_no_fault_of_the_item(
    own_server: CpuServer, make: MakeJudge
) -> None:
    """The last test: nothing runs at this address afterwards."""
    judge = make()
    judge.check()
    with ThreadPoolExecutor(1) as pool:
        judging = pool.submit(ask, judge)
        until = Deadline.after(30)
        probe = SglangClient(own_server.url)
        while not probe.get("/v1/loads", deadline=soon())["loads"][0]["num_running_reqs"]:
            assert until.left_s() > 0
            time.sleep(0.02)  # as above
        own_server.kill()
        with pytest.raises(RuntimeUnavailable):
            judging.result(timeout=30)
    probe.close()
    with pytest.raises((RuntimeUnavailable, RuntimeFault)):
        judge.check()
