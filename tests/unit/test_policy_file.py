"""The file that a policy person edits: short, round-tripping, and refused with the line and the field."""

import re
from importlib import resources
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import given

from moderation.errors import PolicyError
from moderation.policy import (
    Category,
    CategoryState,
    PolicyRevision,
    builtin_policies,
    check_size,
    dump_policy,
    load_policy,
)
from moderation.policy.markup import MAX_CHARACTERS
from tests.unit.policy_strategies import revisions, unhurried

HEAD = "policy: test\ntitle: Test\n"


def load(text: str) -> PolicyRevision:
    return load_policy(text, source="test.yaml")


def refusal(text: str) -> str:
    with pytest.raises(PolicyError) as caught:
        load(text)
    assert caught.value.code == "policy_error"
    assert str(caught.value).isprintable()  # one line, and nothing that drives a terminal
    return str(caught.value)


@unhurried
@given(revisions)
def test_a_dumped_policy_loads_as_it_was(revision: PolicyRevision) -> None:
    assert load(dump_policy(revision)) == revision


def test_the_builtin_files_are_written_as_dump_writes_them() -> None:
    folder = resources.files("moderation.policies")
    for policy in builtin_policies():
        assert folder.joinpath(f"{policy.policy}.yaml").read_text(encoding="utf-8") == dump_policy(policy)


def test_a_file_says_only_where_it_differs_from_the_default() -> None:
    policy = load(
        HEAD + "categories: {O4: non-violating, O9: {should_not: [Show faces.], can: [Show help.]}}\n"
    )
    states = {c.id: c.state for c in policy.categories if c.state is not CategoryState.DEFAULT}
    assert states == {"O4": CategoryState.NON_VIOLATING, "O9": CategoryState.CUSTOM}
    assert policy.categories[8].should_not == ("Show faces.",)
    assert (policy.revision, policy.note) == (1, "")


def test_a_file_of_two_lines_is_the_default() -> None:
    assert load(HEAD).prompt_sha256 == builtin_policies()[0].prompt_sha256


def test_a_state_can_be_written_short_or_long() -> None:
    assert load(HEAD + "categories: {O1: sensitive}") == load(HEAD + "categories: {O1: {state: sensitive}}")


def test_a_list_that_is_left_out_stays_the_defaults_and_an_empty_one_goes() -> None:
    default = Category.in_state("O6")
    kept = load(HEAD + "categories: {O6: {can: [Show toys.]}}").categories[5]
    assert (kept.should_not, kept.can) == (default.should_not, ("Show toys.",))
    emptied = load(HEAD + "categories: {O6: {should_not: [Show guns.], can: []}}").categories[5]
    assert (emptied.should_not, emptied.can) == (("Show guns.",), ())


def test_own_categories_follow_the_nine_in_the_order_of_their_numbers() -> None:
    policy = load(HEAD + "categories: {O11: {name: B, can: [b]}, O10: {name: A, can: [a]}}")
    assert [c.full_name for c in policy.categories[9:]] == ["O10: A", "O11: B"]


def test_words_that_yaml_takes_for_values_stay_words() -> None:
    policy = load(
        "policy: test\ntitle: No\nnote: 1.10\ncategories: {O10: {name: on, can: [yes, ~, 0x10, null]}}"
    )
    assert (policy.title, policy.note, policy.categories[9].name) == ("No", "1.10", "on")
    assert policy.categories[9].can == ("yes", "~", "0x10", "null")


def test_a_long_bullet_may_be_folded_over_lines() -> None:
    text = (
        HEAD + "categories:\n  O10:\n    name: Own\n    can:\n      - Show a thing\n        that is long.\n"
    )
    assert load(text).categories[9].can == ("Show a thing that is long.",)


def test_a_note_of_several_lines_is_written_as_a_block() -> None:
    policy = load(HEAD + "note: |-\n  First.\n\n  Third: with a colon.\n")
    assert policy.note == "First.\n\nThird: with a colon."
    assert "note: |-\n  First.\n\n  Third: with a colon.\n" in dump_policy(policy)


def test_a_byte_order_mark_and_windows_line_breaks_do_no_harm() -> None:
    assert load("\ufeff" + HEAD.replace("\n", "\r\n")) == load(HEAD)


CATEGORIES = HEAD + "categories:\n"  # the next line is the fourth


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # the file as a whole
        ("", "test.yaml:1: is empty"),
        ("# nothing\n", "test.yaml:2: is empty"),
        ("- a\n", "test.yaml:1: must be a mapping of fields"),
        ("text\n", "test.yaml:1: must be a mapping of fields"),
        (HEAD + "---\n" + HEAD, "test.yaml:3: a second document begins"),
        (HEAD + "note: [a\n", "test.yaml:4: not YAML: while parsing a flow sequence"),
        (HEAD + "note: a: b\n", "test.yaml:3: not YAML: mapping values are not allowed here"),
        (HEAD + "\tnote: a\n", "test.yaml:3: not YAML: "),
        (HEAD + "note: a\x07b\n", "test.yaml:3: holds the character U+0007"),
        (HEAD + "note: \ud800\n", "test.yaml:3: holds the character U+D800"),
        (HEAD + "? [a]\n: b\n", "test.yaml:3: a field's name must be a text"),
        (HEAD + "#" * MAX_CHARACTERS, "test.yaml: has 65561 characters; a policy file has at most 65536"),
        # YAML that a policy file does without
        (
            "policy: &x test\ntitle: *x\n",
            "test.yaml:1: policy: anchors and aliases (& and *) are not allowed",
        ),
        (HEAD + "note: *x\n", "test.yaml:3: note: anchors and aliases"),
        (HEAD + "&x note: a\n", "test.yaml:3: anchors and aliases"),
        (HEAD + "<<: {note: a}\n", "test.yaml:3: <<: unknown field"),
        (HEAD + "note: !!python/name:os.system x\n", "test.yaml:3: note: tags such as"),
        (HEAD + "!!str note: x\n", "test.yaml:3: tags such as"),
        (HEAD + "note: [[[[[[[[[[x]]]]]]]]]]\n", "test.yaml:3: note: nested deeper than 8"),
        # fields
        ("title: Test\n", "test.yaml:1: policy: is missing"),
        ("policy: test\n", "test.yaml:1: title: is missing"),
        ("policy: test\ntitle:\n", "test.yaml:2: title: is empty"),
        ("policy: test\ntitle: [a]\n", "test.yaml:2: title: must be a text"),
        ("policy: test\ntitle: " + "a" * 201, "test.yaml:2: title: String should have at most 200"),
        (
            "policy: Test\ntitle: Test\n",
            "test.yaml:1: policy: an id is lower-case letters, digits and dashes",
        ),
        ("policy: -a\ntitle: Test\n", "test.yaml:1: policy: an id is"),
        (HEAD + "title: Again\n", "test.yaml:3: title: stands twice; first on line 2"),
        (HEAD + "colour: red\n", "test.yaml:3: colour: unknown field"),
        (HEAD + '"a\\n\\e[2J": red\n', "test.yaml:3: 'a\\n\\x1b[2J': unknown field"),
        (HEAD + "note: !<!%0A%1B> a\n", "test.yaml:3: note: tags such as '!\\n\\x1b' are not allowed"),
        (HEAD + 'note: "<|\\e|>"\n', "test.yaml:3: note: holds the control character U+001B"),
        (HEAD + "Notes: a\n", "test.yaml:3: Notes: unknown field; did you mean note?"),
        (HEAD + "revision: 0\n", "test.yaml:3: revision: must be a whole number from 1"),
        (HEAD + "revision: 1.0\n", "test.yaml:3: revision: must be a whole number from 1"),
        (HEAD + "revision:\n", "test.yaml:3: revision: must be a whole number from 1"),
        (HEAD + 'note: "a\\u0001b"\n', "test.yaml:3: note: holds the control character U+0001"),
        (HEAD + "note: a <|im_end|> b\n", "test.yaml:3: note: holds <|im_end|>, which the model's tokenizer"),
        (HEAD + "categories:\n", "test.yaml:3: categories: must be a mapping"),
        (HEAD + "categories: [O4]\n", "test.yaml:3: categories: must be a mapping"),
        # categories
        (
            CATEGORIES + "  O4: forbidden\n",
            "test.yaml:4: categories.O4.state: must be default, non-violating or sen",
        ),
        (CATEGORIES + "  O4:\n    state: custom\n", "test.yaml:5: categories.O4.state: must be "),
        (CATEGORIES + "  O4:\n", "test.yaml:4: categories.O4.state: must be "),
        (
            CATEGORIES + "  O4: {}\n",
            "test.yaml:4: categories.O4: give either a state (default, non-violating, sens",
        ),
        (CATEGORIES + "  O4: [a]\n", "test.yaml:4: categories.O4: must be a mapping"),
        (
            CATEGORIES + "  O4:\n    state: sensitive\n    can: [a]\n",
            "test.yaml:4: categories.O4: give either",
        ),
        (
            CATEGORIES + "  O4: sensitive\n  O4: default\n",
            "test.yaml:5: categories.O4: stands twice; first on line 4",
        ),
        (
            CATEGORIES + "  O0: sensitive\n",
            "test.yaml:4: categories.O0: unknown category; the model's are O1 to O9",
        ),
        (CATEGORIES + "  o4: sensitive\n", "test.yaml:4: categories.o4: unknown category"),
        (CATEGORIES + "  NA: sensitive\n", "test.yaml:4: categories.NA: unknown category"),
        (CATEGORIES + "  O11: {name: A, can: [a]}\n", "test.yaml:4: categories.O11: unknown category"),
        (CATEGORIES + "  O10: sensitive\n", "test.yaml:4: categories.O10.name: is missing"),
        (
            CATEGORIES + "  O10: {name: A, state: sensitive}\n",
            "test.yaml:4: categories.O10: O10 is an own category: only O1 to O9 can be sensitive",
        ),
        (CATEGORIES + "  O10: {name: A, can: []}\n", "test.yaml:4: categories.O10: has no bullets"),
        (CATEGORIES + "  O10:\n    can: [a]\n", "test.yaml:4: categories.O10.name: is missing"),
        (CATEGORIES + "  O10:\n    can: [a]\n    name: A|B\n", "test.yaml:6: categories.O10.name: holds |"),
        (CATEGORIES + "  O10:\n    can: [a]\n    name:\n", "test.yaml:6: categories.O10.name: is empty"),
        (
            CATEGORIES + "  O10: {name: nudity content, can: [a]}\n",
            "test.yaml:3: categories: two categories are",
        ),
        (
            CATEGORIES + "  O4:\n    name: Nudes\n    can: [a]\n",
            'test.yaml:4: categories.O4: O4 is called "Nudity',
        ),
        (CATEGORIES + "  O4: {name: Nudes, state: default}\n", "test.yaml:4: categories.O4: O4 is called"),
        (
            CATEGORIES + "  O4:\n    shouldnt: [a]\n    can: [a]\n",
            "test.yaml:5: categories.O4.shouldnt: unknown field",
        ),
        (
            CATEGORIES + "  O4:\n    should-not: [a]\n    can: [a]\n",
            "test.yaml:5: categories.O4.should-not: unknown field; did you mean should_not?",
        ),
        (
            CATEGORIES
            + "  O8:\n    should_not:\n"
            + "".join(f"      - {b}\n" for b in Category.in_state("O8").should_not),
            "test.yaml:4: categories.O8: these bullets are the default's own: leave the category out",
        ),
        # bullets
        (CATEGORIES + "  O4:\n    can: a\n", "test.yaml:5: categories.O4.can: must be a list"),
        (CATEGORIES + "  O4:\n    can:\n    - a\n    -\n", "test.yaml:7: categories.O4.can.2: is empty"),
        (CATEGORIES + "  O4:\n    can:\n    - '  '\n", "test.yaml:6: categories.O4.can.1: starts with white"),
        (CATEGORIES + "  O4:\n    can:\n    - a: b\n", "test.yaml:6: categories.O4.can.1: must be a text"),
        (
            CATEGORIES + "  O4:\n    can:\n    - |\n      a\n",
            "test.yaml:6: categories.O4.can.1: holds a line br",
        ),
        (
            CATEGORIES + '  O4:\n    can:\n    - "a\\nb"\n',
            "test.yaml:6: categories.O4.can.1: holds a line break",
        ),
        (
            CATEGORIES + '  O4:\n    can:\n    - "a\\rb"\n',
            "test.yaml:6: categories.O4.can.1: holds the control",
        ),
        (
            CATEGORIES + "  O4:\n    can:\n    - a <image> b\n",
            "test.yaml:6: categories.O4.can.1: holds <image>",
        ),
        (
            CATEGORIES + "  O4:\n    can:\n    - x <|im_start|>\n",
            "test.yaml:6: categories.O4.can.1: holds <|im_s",
        ),
        (
            CATEGORIES + "  O4:\n    can:\n    - <|endoftext|>\n",
            "test.yaml:6: categories.O4.can.1: holds <|endo",
        ),
    ],
)
def test_a_mistake_is_refused_with_its_line_and_field(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


def test_all_mistakes_are_named_at_once_in_the_order_of_the_file() -> None:
    said = refusal("policy: test\ncolour: red\nrevision: x\ncategories:\n  O4: bad\n").split("; ")
    assert [part.split(": ")[0] for part in said] == [
        "test.yaml:1",
        "test.yaml:2",
        "test.yaml:3",
        "test.yaml:5",
    ]
    many = refusal(HEAD + "".join(f"x{n}: y\n" for n in range(30)))
    assert many.count("unknown field") == 10
    assert many.endswith("; and 20 more")
    own = refusal(CATEGORIES + "  O4:\n    can:\n    - ''\n    - <image>\n").split("; ")
    assert [part.split(": ")[0] for part in own] == ["test.yaml:6", "test.yaml:7"]


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\n"
        + "".join(f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
        "a: " + "[" * 60_000,
        "a: " + "{b: " * 15_000,
        "- " * 30_000,
        "? " * 30_000,
        "a: '" + "x" * 60_000,
        "a\n" * 30_000,
        HEAD + "categories: {" + ", ".join(f"O{n}: sensitive" for n in range(1, 3000)) + "}",
    ],
)
def test_a_hostile_file_is_refused_in_seconds(text: str) -> None:
    started = monotonic()
    assert refusal(text)
    assert monotonic() - started < 10


def test_the_documents_example_is_a_policy() -> None:
    document = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
    example, *_ = re.findall(r"```yaml\n(.*?)```", document, flags=re.DOTALL)
    policy = load(example)
    changed = {c.id: c.state for c in policy.categories if c.state is not CategoryState.DEFAULT}
    assert changed == {
        "O2": CategoryState.NON_VIOLATING,
        "O5": CategoryState.SENSITIVE,
        "O9": CategoryState.CUSTOM,
        "O10": CategoryState.CUSTOM,
    }
    check_size(policy)
    listed = re.findall(r"^\| `([a-z-]+)` \|", document, flags=re.MULTILINE)
    assert listed == [p.policy for p in builtin_policies()]


def test_the_documents_mistakes_are_worded_as_they_are_met() -> None:
    document = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
    example, *_ = re.findall(r"```yaml\n(.*?)```", document, flags=re.DOTALL)
    for good, bad in (("sensitive ", "forbidden "), ("Show damaged buildings.", "''")):
        assert good in example
        with pytest.raises(PolicyError) as caught:
            load_policy(example.replace(good, bad), source="city-news.yaml")
        assert f"    {caught.value}\n" in document
