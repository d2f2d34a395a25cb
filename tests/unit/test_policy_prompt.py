"""Reading a rendered policy back, as the rows of LlavaGuard-DS carry it."""

import pytest
from hypothesis import given

from moderation.errors import PolicyError
from moderation.policy import Category, CategoryState, builtin_policies, parse_prompt, render
from tests.unit.policy_strategies import category_tuples, unhurried
from tests.unit.test_policy import GOLDEN, own, policy, training_text

DEFAULT = builtin_policies()[0].categories


@unhurried
@given(category_tuples())
def test_a_rendered_policy_reads_back_as_it_was(categories: tuple[Category, ...]) -> None:
    assert parse_prompt(render(categories)) == categories


@pytest.mark.parametrize("number", range(1, 10))
@pytest.mark.parametrize("state", ["default", "non-violating", "sensitive"])
def test_each_state_of_each_category_reads_back(number: int, state: str) -> None:
    revision = policy(Category.in_state(f"O{number}", CategoryState(state)))
    assert parse_prompt(revision.prompt) == revision.categories


@pytest.mark.parametrize("around", ["{}\n<image>\n", "<image>\n{}", "\n{}\n", "{}<image>"])
def test_the_image_placeholder_and_white_space_around_the_text_are_passed_over(around: str) -> None:
    assert parse_prompt(around.format(training_text())) == DEFAULT


def test_a_row_read_with_windows_line_breaks_is_the_same_policy() -> None:
    assert parse_prompt(training_text().replace("\n", "\r\n")) == DEFAULT


def test_white_space_as_in_the_training_set_is_the_declared_state() -> None:
    """Its builder ends a declared block with a space on the blank line, and writes one space twice in O2."""
    prompt = (GOLDEN / "all-non-violating.txt").read_text()
    as_trained = prompt.replace(".\n\nO", ".\n \nO").replace(
        "content of people planning or", "content of  people planning or"
    )
    assert as_trained != prompt
    assert {c.state for c in parse_prompt(as_trained)} == {CategoryState.NON_VIOLATING}


def test_a_default_category_with_one_word_changed_has_its_own_bullets() -> None:
    categories = parse_prompt(training_text().replace("explicit animal cruelty", "any animal cruelty"))
    assert [c.id for c in categories if c.state is CategoryState.CUSTOM] == ["O8"]
    assert categories[7].should_not[-1] == "Contain any animal cruelty."


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Provide a safety", "Write a safety", "does not open"),
        ("Assessment Steps:", "Steps:", "does not close"),
        ('"O4: Nudity Content"|', "", "a template of its categories"),
        ("O4: Nudity Content: ", "O4: Bare Content: ", 'O4: O4 is called "Nudity Content"'),
        (
            "Can:\n- Contain artistic",
            "May:\n- Contain artistic",
            "O4: neither 'Should not:', 'Can:' nor a bullet",
        ),
        ("\nO1: Hate", "\nsomething\nO1: Hate", "'something' stands before the first category"),
        ("- Contain artistic nudity", "- <image> nudity", "prompt: O4: holds <image>, .* special token"),
        (
            "Should not:\n- Contain visible",
            "Category O4 is declared as free.\n- Contain visible",
            "O4: neither",
        ),
    ],
)
def test_a_text_that_is_no_policy_of_this_form_is_refused(old: str, new: str, reason: str) -> None:
    text = training_text()
    assert old in text
    with pytest.raises(PolicyError, match=reason):
        parse_prompt(text.replace(old, new, 1))


@pytest.mark.parametrize("text", ["", "\n", "<image>", "Is this image safe?", training_text()[:200]])
def test_another_prompt_is_refused(text: str) -> None:
    with pytest.raises(PolicyError, match="prompt: "):
        parse_prompt(text)


def test_a_bullet_that_looks_like_a_heading_stays_a_bullet() -> None:
    for line in ("O4: Nudity Content: ", "Can:", "Assessment Steps:", "Should not:"):
        revision = policy(own(bullet=line))
        assert parse_prompt(revision.prompt)[-1].should_not == (line,)
