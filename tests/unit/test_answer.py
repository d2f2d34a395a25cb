"""Reading answers: what counts as one, what a cut one still says, and what no parser may take for one."""

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.policy import builtin_policies
from moderation.verdict import Rating
from tests.support.answer_corpus import Case, load
from worker.judges.answer import Malformed, read, read_brief, salvage
from worker.judges.grammar import OPENING

NAMES = builtin_policies()[0].category_names
CORPUS = load()
TEMPLATE = json.dumps(
    {"rating": "Unsafe", "category": "O4: Nudity Content", "rationale": "It shows what the policy forbids."},
    indent=4,
)


def outcome(text: str, finish: str) -> str:
    """Where one answer alone gets: strict, salvage, or the problem for which the judge must ask again."""
    try:
        read(text, NAMES)
    except Malformed as problem:
        found = str(problem)
    else:
        return "strict"
    if finish != "length":
        return found
    try:
        salvage(text, NAMES)
    except Malformed:
        return found
    return "salvage"


def test_the_corpus_holds_at_least_120_mangled_answers_under_distinct_names() -> None:
    names = [case.name for case in CORPUS]
    assert len(set(names)) == len(names)
    assert sum(case.reaches != "strict" for case in CORPUS) >= 120


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_first_answer_gets_as_far_as_it_must_and_no_further(case: Case) -> None:
    found = outcome(case.answers[0].text, case.answers[0].finish)
    if case.reaches == "strict" or (case.reaches == "salvage" and len(case.answers) == 1):
        assert found == case.reaches
    else:
        assert found not in ("strict", "salvage")
        assert found.startswith(case.problem or "")


@pytest.mark.parametrize("end", range(len(TEMPLATE)))
def test_answer_cut_at_any_character_says_what_it_said_or_nothing(end: int) -> None:
    cut = TEMPLATE[:end]
    complete = end >= TEMPLATE.index('Content"') + len('Content"')
    if not complete:
        with pytest.raises(Malformed):
            salvage(cut, NAMES)
        return
    found = salvage(cut, NAMES)
    assert (found.rating, found.category, found.truncated) == (Rating.UNSAFE, "O4: Nudity Content", True)
    assert "It shows what the policy forbids.".startswith(found.rationale)


@given(st.text(max_size=200))
def test_no_text_is_read_as_an_answer_unless_it_is_the_object(text: str) -> None:
    for reader in (read, salvage):
        try:
            found = reader(text, NAMES)
        except Malformed:
            continue
        assert text.lstrip().startswith("{")
        assert f'"{found.rating.value}"' in text


@given(st.data())
def test_one_changed_character_never_turns_an_answer_into_its_opposite(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(TEMPLATE) - 1))
    put = data.draw(st.text(max_size=3))
    changed = TEMPLATE[:place] + put + TEMPLATE[place + 1 :]
    for reader in (read, salvage):
        try:
            found = reader(changed, NAMES)
        except Malformed:
            continue
        assert found.rating is Rating.UNSAFE
        assert found.category in NAMES


def test_category_of_a_policy_with_its_own_names_is_read_and_the_defaults_are_not() -> None:
    own = ("O1: Münzen (alt)", 'O2: "Quoted" / slashed', "NA: None applying")
    for name in own:
        text = json.dumps({"rating": "Unsafe", "category": name, "rationale": "x"}, indent=4)
        assert read(text, own).category == name
        assert salvage(text[:-6], own).category == name
    with pytest.raises(Malformed, match="foreign_category"):
        read(TEMPLATE, own)


@pytest.mark.parametrize(
    "text",
    [
        'Unsafe",\n    "category": "O4: Nudity Content",\n    ',
        'Unsafe",\n    "category": "O4: Nudity Content"\n}',
    ],
)
def test_brief_answer_is_read_up_to_the_category(text: str) -> None:
    found = read_brief(OPENING + text, NAMES)
    assert (found.rating, found.category, found.rationale) == (Rating.UNSAFE, "O4: Nudity Content", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Unsafe",
        "Safe or Unsafe",
        'Unsafe",\n    "category": "O4',
        'unsafe",\n    "category": "O4: Nudity Content"',
        'Safe",\n    "category": "O4: Gambling"',
        'Safe",\n    "category": "NA: None applying", "rating": "Unsafe"',
    ],
)
def test_brief_answer_that_is_none_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        read_brief(OPENING + text, NAMES)


@pytest.mark.parametrize(
    "text",
    [
        " " * 500_000,
        '{"rating": "Safe", "category": "' + "\\u0041" * 10_000,
        '{"rating": "Safe", "category": "NA: None applying"' + " " * 60_000 + "x",
        OPENING + 'Safe",\n    "category": "NA: None applying"' + " " * 60_000 + "x",
        "{" * 60_000,
        '{"rating": "Safe", "category": "NA: None applying", "rationale": "' + "\\" * 59_999,
    ],
    ids=["white space", "escapes", "tail", "brief tail", "braces", "backslashes"],
)
def test_hostile_answers_take_no_more_than_a_tenth_of_a_second_to_read(text: str) -> None:
    for reader in (read, salvage, read_brief):
        start = time.process_time()
        with contextlib.suppress(Malformed):
            reader(text, NAMES)
        assert time.process_time() - start < 0.1
