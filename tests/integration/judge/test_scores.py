"""Rationales on demand, P(unsafe), and what needs a review."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from moderation.policy import Category, CategoryState, PolicyRevision, builtin_policies
from moderation.verdict import Rating, Rung
from tests.support.judging import DEFAULT, NUDITY, UNSAFE, MakeJudge, ask, view
from tests.support.sglang_server import ScriptedServer
from worker.judges.calibration import Calibration


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


@pytest.mark.parametrize("p", [0.02, 0.4, 0.93])
@pytest.mark.parametrize("original", [True, False])
def test_a_server_that_notes_the_rating_itself_is_asked_for_no_logprobs(
    server: ScriptedServer, make: MakeJudge, p: float, original: bool
) -> None:
    rating = "Unsafe" if p > 0.5 else "Safe"
    server.script(
        default={"kind": "verdict", "rating": rating, "p_unsafe": p},
        original_logprobs=original,
        rating_logits=True,
    )
    judgement = ask(make())
    assert judgement.p_unsafe == pytest.approx(p, abs=1e-6)
    assert "return_logprob" not in server.requests[-1].body


def test_what_a_server_notes_is_left_unread_where_no_probability_is_wanted(
    server: ScriptedServer, make: MakeJudge
) -> None:
    server.script(rating_logits=True)
    assert ask(make(p_unsafe="off")).p_unsafe is None


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
