"""What changed between two revisions, as data and as lines."""

from hypothesis import given

from moderation.policy import (
    Category,
    CategoryState,
    PolicyDiff,
    PolicyRevision,
    builtin_policies,
    describe_diff,
)
from tests.unit.policy_strategies import revisions, unhurried
from tests.unit.test_policy import own, policy

DEFAULT, _, ART, NEWS, STRICT = builtin_policies()


def test_a_state_that_changed_is_one_line() -> None:
    diff = describe_diff(DEFAULT, ART)
    assert [c.category for c in diff.changed] == ["O4: Nudity Content"]
    assert (diff.added, diff.removed, diff.same_prompt) == ((), (), False)
    assert diff.lines[0] == "llavaguard-default@1 -> art-and-education@1"
    assert diff.lines[-1] == "O4: Nudity Content: default -> non-violating"


def test_bullets_that_came_and_went_are_named_one_by_one() -> None:
    default = Category.in_state("O8")
    changed = Category(
        id="O8",
        name=default.name,
        state=CategoryState.CUSTOM,
        should_not=(*default.should_not[1:], "Show hunting."),
        can=default.can,
    )
    change = describe_diff(policy(), policy(changed)).changed[0]
    assert change.should_not is not None
    assert change.should_not.added == ("Show hunting.",)
    assert change.should_not.removed == default.should_not[:1]
    assert change.can is None
    assert describe_diff(policy(), policy(changed)).lines[1:] == (
        "O8: Animal Cruelty: default -> custom",
        f"  - should not: {default.should_not[0]}",
        "  + should not: Show hunting.",
    )


def test_the_same_bullets_in_another_order_are_said_to_be_so() -> None:
    default = Category.in_state("O8")
    turned = default.model_dump() | {"state": "custom", "should_not": default.should_not[::-1]}
    diff = describe_diff(policy(), policy(Category.model_validate(turned)))
    assert diff.lines[-1] == "  should not: another order"


def test_own_categories_come_and_go_by_their_full_names() -> None:
    diff = describe_diff(policy(own()), policy(own("Spoilers")))
    assert (diff.removed, diff.added) == (("O10: Gambling",), ("O10: Spoilers",))
    assert diff.lines[1:] == ("- category O10: Gambling", "+ category O10: Spoilers")


def test_a_change_that_the_model_does_not_see_is_said_to_be_none() -> None:
    renamed = PolicyRevision(policy="test", revision=2, title="New", note="n", categories=policy().categories)
    diff = describe_diff(policy(), renamed)
    assert diff.same_prompt
    assert diff.lines == (
        "test@1 -> test@2",
        "title: 'Test' -> 'New'",
        "note: changed",
        "the model reads the same text",
    )


@unhurried
@given(revisions, revisions)
def test_a_diff_tells_whether_and_what_the_model_sees_change(
    one: PolicyRevision, two: PolicyRevision
) -> None:
    diff = describe_diff(one, two)
    assert (
        diff.same_prompt
        == (one.prompt == two.prompt)
        == (not diff.added and not diff.removed and not diff.changed)
    )
    assert PolicyDiff.model_validate_json(diff.model_dump_json()) == diff
    back = describe_diff(two, one)
    assert (back.added, back.removed) == (diff.removed, diff.added)
    assert len(back.changed) == len(diff.changed)
    assert describe_diff(one, one).lines[1:] == ("the model reads the same text",)
