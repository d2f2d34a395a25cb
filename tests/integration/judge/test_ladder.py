"""What the sglang judge makes of malformed answers, and how it asks again."""

from collections.abc import Iterator
from typing import Any

import pytest

from moderation.errors import (
    MalformedAnswer,
)
from moderation.verdict import Rating, Rung
from tests.support.answer_corpus import Case, load
from tests.support.judging import NUDITY, MakeJudge, ask, failing
from tests.support.sglang_script import Rule
from tests.support.sglang_server import ScriptedServer
from worker.judges.settings import SglangSettings
from worker.judges.sglang import SglangJudge


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
