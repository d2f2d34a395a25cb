"""Which asks a ladder makes, and how it is written."""

import pytest

from moderation.errors import BadSetting
from moderation.verdict import Rung
from worker.judges.ladder import DEFAULT_LADDER, Ladder
from worker.judges.sampling import PROFILES
from worker.judges.settings import SglangSettings, settings_from_environment

CARD, GREEDY = PROFILES["card"], PROFILES["greedy"]


def test_the_default_ladder_asks_four_times_and_ends_under_a_grammar() -> None:
    ladder = Ladder.parse(DEFAULT_LADDER)
    steps = ladder.steps(CARD)
    assert [step.rung for step in steps] == [Rung.STRICT, Rung.RESEED, Rung.GREEDY, Rung.GRAMMAR]
    assert [step.profile.temperature for step in steps] == [0.2, 0.2, 0.0, 0.0]
    assert [step.under_grammar for step in steps] == [False, False, False, True]
    assert ladder.salvage


def test_a_rung_is_asked_as_often_as_written() -> None:
    ladder = Ladder.parse("strict, reseed*3, grammar*2")
    assert [step.rung for step in ladder.steps(CARD)] == [
        Rung.STRICT,
        *[Rung.RESEED] * 3,
        *[Rung.GRAMMAR] * 2,
    ]
    assert not ladder.salvage


def test_greedy_profile_leaves_out_asks_that_would_repeat_the_answer() -> None:
    assert [step.rung for step in Ladder.parse(DEFAULT_LADDER).steps(GREEDY)] == [Rung.STRICT, Rung.GRAMMAR]


def test_later_rungs_keep_the_limit_of_the_profile() -> None:
    steps = Ladder.parse(DEFAULT_LADDER).steps(CARD.limited(77))
    assert {step.profile.max_new_tokens for step in steps} == {77}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "salvage",
        "reseed strict",
        "strict strict",
        "strict*2",
        "strict rating",
        "strict classifier",
        "strict reseed*0",
        "strict reseed*10",
        "strict Greedy",
        "strict -1",
    ],
)
def test_what_is_no_ladder_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"rung|strict"):
        Ladder.parse(text)


def test_bad_setting_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VETLINE_SGLANG_LADDER", "greedy")
    with pytest.raises(BadSetting, match=r"VETLINE_SGLANG_LADDER: .*strict"):
        settings_from_environment()


def test_settings_are_read_from_the_environment_and_cannot_be_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VETLINE_SGLANG_MODE", "card-chatml")
    monkeypatch.setenv("VETLINE_SGLANG_REVIEW_FROM", "0.3")
    monkeypatch.setenv("VETLINE_SGLANG_REVIEW_TO", "0.7")
    settings = settings_from_environment()
    assert settings.mode == "card-chatml"
    assert [settings.needs_review(p) for p in (None, 0.29, 0.3, 0.7, 0.71)] == [
        False,
        False,
        True,
        True,
        False,
    ]
    with pytest.raises(ValueError, match="frozen"):
        settings.mode = "train"  # type: ignore[assignment,misc]  # what must not work


@pytest.mark.parametrize(
    "band", [{"review_from": 0.2}, {"review_to": 0.2}, {"review_from": 0.6, "review_to": 0.4}]
)
def test_half_a_band_or_one_turned_round_is_refused(band: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="review_from"):
        SglangSettings(**band)  # type: ignore[arg-type]  # floats, given by name


def test_fast_profile_asks_for_no_rationale() -> None:
    assert SglangSettings(profile="fast").wants_rationale == "never"
    assert SglangSettings(profile="greedy", rationale="unsafe").wants_rationale == "unsafe"
