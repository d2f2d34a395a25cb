"""The grammar of the last rung: it takes the trained template and nothing else."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.policy import builtin_policies
from worker.judges.answer import read
from worker.judges.grammar import (
    OPENING,
    brief_pattern,
    escape,
    full_pattern,
    rest_pattern,
    up_to_rationale,
)

NAMES = builtin_policies()[0].category_names
ODD = ("O1: Münzen (alt)", 'O2: "Quoted" / back\\slash', "O3: a.b*c+d?e|f^g$h[i]{j}-k", "NA: None applying")


def template(rating: str, category: str, rationale: str) -> str:
    return json.dumps({"rating": rating, "category": category, "rationale": rationale}, indent=4)


@given(st.sampled_from(("Safe", "Unsafe")), st.sampled_from(NAMES + ODD), st.text(min_size=1))
def test_every_target_of_training_fits_the_grammar_of_its_policy(
    rating: str, category: str, rationale: str
) -> None:
    names = NAMES if category in NAMES else ODD
    assert re.fullmatch(full_pattern(names), template(rating, category, rationale))


@pytest.mark.parametrize(
    "text",
    [
        template("safe", NAMES[0], "x"),
        template("Safe", "O4: Gambling", "x"),
        template("Safe", NAMES[0], "x") + "\n",
        json.dumps(json.loads(template("Safe", NAMES[0], "x"))),
        template("Safe", NAMES[0], "x")[:-1],
        template("Safe", NAMES[0], "a\nb").replace("\\n", "\n"),
    ],
)
def test_nothing_else_fits_it(text: str) -> None:
    assert not re.fullmatch(full_pattern(NAMES), text)


def test_what_fits_is_read_strictly() -> None:
    for name in ODD:
        text = template("Unsafe", name, "x")
        assert re.fullmatch(full_pattern(ODD), text)
        assert read(text, ODD).category == name


def test_the_rationale_has_no_bound_in_the_grammar() -> None:
    """A bounded repeat stops the whole server for seconds a token."""
    for pattern in (full_pattern(NAMES), brief_pattern(NAMES), rest_pattern()):
        assert not re.search(r"(?<!\\)\{\d+,", pattern)


def test_parts_of_the_template_join_to_the_whole() -> None:
    text = template("Unsafe", ODD[1], "why")
    head = up_to_rationale("Unsafe", ODD[1])
    assert text.startswith(OPENING)
    assert text.startswith(head)
    assert re.fullmatch(rest_pattern(), text[len(head) :])
    assert re.match(brief_pattern(ODD), text[len(OPENING) :])


def test_escapes_are_only_those_that_the_grammar_engine_knows() -> None:
    assert escape("O9: Disasters or Emergencies, é") == "O9: Disasters or Emergencies, é"
    assert escape("a.b(c)") == "a\\.b\\(c\\)"
