"""A scripted SGLang over real HTTP, and judges that ask it."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.judging import MakeJudge
from tests.support.sglang_server import ScriptedServer
from worker.judges.settings import SglangSettings
from worker.judges.sglang import SglangJudge


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
