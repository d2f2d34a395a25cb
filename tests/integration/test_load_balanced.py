"""Several SGLang servers as one judge: the fewest in flight, around what is down, and back again."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256

import pytest

from intake.picture import View
from moderation.errors import BadSetting, RuntimeUnavailable
from moderation.policy import builtin_policies
from moderation.verdict import Judgement
from tests.support.sglang_server import ScriptedServer
from tests.support.waiting import wait_for
from worker.judges.factory import make_judge
from worker.judges.load_balanced import LoadBalancedJudge
from worker.settings import WorkerSettings

POLICY = builtin_policies()[0]
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[ScriptedServer, ScriptedServer]]:
    with ScriptedServer() as one, ScriptedServer() as two:
        yield one, two


@pytest.fixture
def servers(
    running: tuple[ScriptedServer, ScriptedServer],
) -> Iterator[tuple[ScriptedServer, ScriptedServer]]:
    for server, version in zip(running, ("0.5.16", "0.5.23"), strict=True):
        server.script(version=version)
        server.reset()
    yield running
    for server in running:
        server.stop_listening()
        server.listen()


@pytest.fixture
def judge(servers: tuple[ScriptedServer, ScriptedServer]) -> Iterator[LoadBalancedJudge]:
    with ExitStack() as stack:
        made = make_judge(WorkerSettings(sglang_url=tuple(server.url for server in servers)))
        stack.callback(made.close)
        assert isinstance(made, LoadBalancedJudge)
        yield made


def asked(judge: LoadBalancedJudge, number: int = 0) -> Judgement:
    data = b"\xff\xd8\xff" + number.to_bytes(4, "big")
    pixels = sha256(data).hexdigest()
    view = View(name="whole", data=data, media_type="image/jpeg", width=8, height=8, pixels_sha256=pixels)
    return judge.judge(view, POLICY, timeout_s=PATIENCE_S)


def images_at(server: ScriptedServer) -> int:
    return sum(request.image is not None for request in server.requests)


def test_images_go_to_the_server_with_the_fewest_in_flight(
    judge: LoadBalancedJudge, servers: tuple[ScriptedServer, ScriptedServer]
) -> None:
    one, two = servers
    one.script(version="0.5.16", default={"kind": "hang"}, rules=[{"when": {"one_token": True}}])
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(asked, judge, 1)
        one.wait_until(lambda server: images_at(server) == 1, timeout_s=PATIENCE_S)
        versions = {asked(judge, number).runtime_version for number in range(2, 8)}
        assert versions == {"0.5.23"}, "a verdict says which server answered"
        assert (images_at(one), images_at(two)) == (1, 6)
        one.stop_listening()
        assert stuck.result(PATIENCE_S).runtime_version == "0.5.23"


def test_many_at_once_are_spread_evenly(
    judge: LoadBalancedJudge, servers: tuple[ScriptedServer, ScriptedServer]
) -> None:
    for server in servers:
        server.script(default={"kind": "verdict", "latency_s": 0.05})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: asked(judge, number), range(64)))
    assert all(16 <= images_at(server) <= 48 for server in servers)


def test_one_that_is_down_is_left_out_and_comes_back(
    judge: LoadBalancedJudge, servers: tuple[ScriptedServer, ScriptedServer]
) -> None:
    one, two = servers
    one.stop_listening()
    judge.check()
    assert {asked(judge, number).runtime_version for number in range(6)} == {"0.5.23"}
    assert images_at(two) == 6
    assert (judge.runtime().state, judge.runtime().version) == ("1 of 2 servers", "0.5.23")
    one.listen()
    wait_for(lambda: asked(judge).runtime_version == "0.5.16", timeout_s=PATIENCE_S, what="the first server")
    assert (judge.runtime().state, judge.runtime().version) == ("2 of 2 servers", "0.5.16, 0.5.23")


def test_it_is_unavailable_only_when_all_are(
    judge: LoadBalancedJudge, servers: tuple[ScriptedServer, ScriptedServer]
) -> None:
    for server in servers:
        judge.check()
        server.stop_listening()
    with pytest.raises(RuntimeUnavailable, match="none of 2 SGLang servers"):
        judge.check()
    with pytest.raises(RuntimeUnavailable, match="none of 2 SGLang servers"):
        asked(judge)
    servers[1].listen()
    judge.check()
    assert asked(judge).runtime_version == "0.5.23"


def test_an_image_under_which_two_servers_broke_is_not_asked_of_a_third() -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(ScriptedServer({"default": {"kind": "reset"}})) for _ in range(3)]
        for server in servers:
            server.script(default={"kind": "reset"}, rules=[{"when": {"one_token": True}}])
        judge = make_judge(WorkerSettings(sglang_url=tuple(server.url for server in servers)))
        stack.callback(judge.close)
        assert isinstance(judge, LoadBalancedJudge)
        with pytest.raises(RuntimeUnavailable):
            asked(judge)
        assert sorted(images_at(server) for server in servers) == [0, 1, 1]


def test_a_server_of_the_wrong_model_is_left_out(
    judge: LoadBalancedJudge, servers: tuple[ScriptedServer, ScriptedServer]
) -> None:
    one, _ = servers
    one.script(image_token_id=None)
    judge.check()
    assert asked(judge).runtime_version == "0.5.23"


def test_where_every_server_is_the_wrong_one_it_says_so(
    judge: LoadBalancedJudge, servers: tuple[ScriptedServer, ScriptedServer]
) -> None:
    for server in servers:
        server.script(image_token_id=None)
    with pytest.raises(BadSetting, match="without the image"):
        judge.check()


def test_known_pixels_are_reused_only_where_all_servers_serve_the_same_model(
    judge: LoadBalancedJudge, servers: tuple[ScriptedServer, ScriptedServer]
) -> None:
    one, two = servers
    two.script(default={"kind": "verdict", "latency_s": 0.2}, model_path="/models/another")
    assert judge.basis() is None
    asked(judge, 1)
    assert judge.basis() is not None
    with ThreadPoolExecutor(2) as pool:
        one.script(default={"kind": "verdict", "latency_s": 0.2})
        list(pool.map(lambda number: asked(judge, number), range(4)))
    assert judge.basis() is None


def test_urls_come_from_either_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def urls() -> list[str]:
        made = make_judge(WorkerSettings())
        made.close()
        assert isinstance(made, LoadBalancedJudge)
        return [server.url for server in made._servers]

    pair = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    monkeypatch.setenv("VETLINE_SGLANG_URL", ", ".join([*pair, pair[0]]))
    assert urls() == pair
    monkeypatch.setenv("VETLINE_WORKER_SGLANG_URL", ",".join(reversed(pair)))
    assert urls() == pair[::-1]
