"""The bytes that the model reads, against an assembly that shares no code with the renderer."""

import hashlib
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from pydantic import ValidationError

from moderation.errors import UnknownPolicy
from moderation.policy import (
    Category,
    CategoryState,
    PolicyRevision,
    builtin_policies,
    parse_ref,
    refuse_special_tokens,
    render,
    warnings,
)
from tests.unit.policy_strategies import KNOWN, revisions, unhurried

GOLDEN = Path(__file__).parent / "policy_golden"
TRAINED_ON = "16c712fecb9c1ae99aa4fdd9dc4ae323be0091192756670b181a3bbcae10900d"
BUILTIN = {
    "llavaguard-default@1": TRAINED_ON,
    "dataset-curation@1": "4562254628098d2086c39e598aec6e885c1e92ca7d2c5bacaf0260e208e85edb",
    "art-and-education@1": "b65e033994f4eea976272b11a727e7739d572f478c2f8295496a3d1691beb372",
    "newsroom@1": "495b903181d71676763a92299f63549779554456c05aa7a93513ce34b65f593e",
    "strict@1": "1beb4aec1cfea9dab13452485b4d34933e2e7135931c9953ee381116544b975e",
}
# SHA-256 of the whole prompt with one category in the state and the others in the default, O1 to O9; taken
# from an assembly of the training text in awk.
ONE_IN_STATE = {
    "non-violating": [
        "91c86e76d3e6f3776d9f7a8599268d8f6ba9c96102472dbed3b380a51f2b7e44",
        "7f05b3ce1db9c2321689f3ba8f1e85cffa5b2649a1fcb02370ce0b8ecc73de61",
        "b76d3e02527f6769cce1d751f39130fb4b65186756dd766f522e9de56065071d",
        "b65e033994f4eea976272b11a727e7739d572f478c2f8295496a3d1691beb372",
        "a5edade290a67f0c2cff902c29e8bf72d2fcce162a996e5dc2ce9293ce1d612a",
        "4562254628098d2086c39e598aec6e885c1e92ca7d2c5bacaf0260e208e85edb",
        "8e08c80b5756850caae321b2c4fb7d47de5ec3e663485b519c85d289a1dc3846",
        "d15f3ab3aecfc1f7092681b01e595cc9570ddac0ade3de728587b0640ae4feb9",
        "4ca2bb1119951c03a156a6fe2da61b0cb679598a3ba33ee1b4bd4804ead50bc5",
    ],
    "sensitive": [
        "5bc2240393c75ec57c28188c68c3013cb932ce93f448cde076b74047ecf67004",
        "440b648eb30acfc74c6143c6eeb2a8ddbca15fb78ceb6894d383de2791ccdab2",
        "04dd4f7359549cc38b30b24ff834031902d851ea04fd625b73f18909d46590d2",
        "d4652399cc98a5a7f0853e1e0c1f4ca2ee6dcfd85df9409a25da7717c1e23458",
        "51f6bba76c26a26524c9ca4155cd1fd4ec8b944706930de42bcddce0ffd86a57",
        "93e2075b687116ce42e75d9c686f5db403ba4b4b5ec6af06b0ab764beed423d1",
        "30a520cb92452dd1569c13e3860db6261f264f13ceaf2c9c7d3fc294cda3c7db",
        "209558824520a0a1adb42cb62395a6e2a56766712d3226480d543479540b9182",
        "9e662c77a1821036bbaf2d6e6b128bdd0cd349e95fb693f898db4beb3ec21cc2",
    ],
}
SENTENCES = {
    "non-violating": "Category {} is declared as non-violating. Therefore, we do not provide any "
    "restrictions for this category and allow any content of this category e.g.",
    "sensitive": "Category {} is declared as sensitive. Therefore, we do not permit any content related to "
    "this category e.g.",
}


def training_text() -> str:
    data = resources.files("moderation.policies").joinpath("llavaguard-default.txt").read_bytes()
    assert hashlib.sha256(data).hexdigest() == TRAINED_ON
    return data.decode()


def assembled(states: dict[str, str]) -> bytes:
    """The training text with some categories in a state, built line by line and not by the renderer."""
    lines, current = [], ""
    for line in training_text().split("\n"):
        if line.endswith(": ") and line[:1] == "O":
            current = states.get(line[:2], "default")
            lines.append(line)
            if current != "default":
                lines.append(SENTENCES[current].format(line[:2]))
        elif line in ("Should not:", "Can:") and current != "default":
            continue
        else:
            lines.append(f" {line}" if line.startswith("- ") and current != "default" else line)
    return "\n".join(lines).encode()


def policy(*categories: Category) -> PolicyRevision:
    """The default with some categories put in, own ones at the end."""
    given_ids = {c.id: c for c in categories}
    known = [given_ids.pop(category_id, Category.in_state(category_id)) for category_id in KNOWN]
    return PolicyRevision(policy="test", title="Test", categories=(*known, *given_ids.values()))


def own(name: str = "Gambling", category_id: str = "O10", bullet: str = "Promote betting.") -> Category:
    return Category(
        id=category_id,
        name=name,
        state=CategoryState.CUSTOM,
        should_not=(bullet,),
        can=("Report on betting.",),
    )


def test_the_default_is_the_text_that_the_model_was_trained_on_byte_for_byte() -> None:
    default = builtin_policies()[0]
    assert default.ref == "llavaguard-default@1"
    assert default.prompt == training_text()
    assert default.prompt_sha256 == TRAINED_ON


def test_every_builtin_renders_to_its_known_bytes() -> None:
    assert {p.ref: p.prompt_sha256 for p in builtin_policies()} == BUILTIN


def test_every_builtin_file_is_a_builtin_policy() -> None:
    files = {f.name for f in resources.files("moderation.policies").iterdir() if f.name.endswith(".yaml")}
    assert files == {f"{p.policy}.yaml" for p in builtin_policies()}


@pytest.mark.parametrize("state", ["non-violating", "sensitive"])
@pytest.mark.parametrize("number", range(1, 10))
def test_each_state_of_each_category_has_exact_bytes(state: str, number: int) -> None:
    category_id = f"O{number}"
    rendered = policy(Category.in_state(category_id, CategoryState(state)))
    assert rendered.prompt.encode() == assembled({category_id: state})
    assert rendered.prompt_sha256 == ONE_IN_STATE[state][number - 1]


@pytest.mark.parametrize(
    ("golden", "states"),
    [
        ("all-non-violating", dict.fromkeys(KNOWN, CategoryState.NON_VIOLATING)),
        ("all-sensitive", dict.fromkeys(KNOWN, CategoryState.SENSITIVE)),
        ("one-of-each", {"O4": CategoryState.NON_VIOLATING, "O6": CategoryState.SENSITIVE}),
    ],
)
def test_several_states_at_once_render_as_in_the_golden_file(
    golden: str, states: dict[str, CategoryState]
) -> None:
    rendered = policy(*(Category.in_state(category_id, state) for category_id, state in states.items()))
    assert rendered.prompt.encode() == (GOLDEN / f"{golden}.txt").read_bytes()


def test_own_bullets_and_own_categories_render_as_in_the_golden_file() -> None:
    name = Category.in_state("O9").name
    bullets = Category(
        id="O9", name=name, state=CategoryState.CUSTOM, should_not=("Show faces of victims.",), can=()
    )
    rendered = policy(bullets, own(), own("Spoilers", "O11", "Reveal an ending."))
    assert rendered.prompt.encode() == (GOLDEN / "own.txt").read_bytes()


def test_category_names_are_the_templates_in_its_order() -> None:
    revision = policy(own())
    quoted = "|".join(f'"{name}"' for name in revision.category_names)
    assert f'"category": str<{quoted}>,' in revision.prompt
    assert revision.category_names[3] == "O4: Nudity Content"
    assert revision.category_names[-2:] == ("O10: Gambling", "NA: None applying")


@pytest.mark.parametrize(
    ("ref", "parsed"), [("strict", ("strict", None)), ("a-1@12", ("a-1", 12)), ("0", ("0", None))]
)
def test_a_reference_names_an_id_and_perhaps_a_revision(ref: str, parsed: tuple[str, int | None]) -> None:
    assert parse_ref(ref) == parsed


@pytest.mark.parametrize(
    "ref",
    ["", "@1", "a@", "a@0", "a@01", "a@-1", "a@1@2", "A", "a b", "-a", "a\n", "a@1\n", "a_b", "ä", "a" * 65],
)
def test_anything_else_is_no_reference(ref: str) -> None:
    with pytest.raises(UnknownPolicy, match="names no policy"):
        parse_ref(ref)


def test_only_the_states_seen_in_training_go_without_a_warning() -> None:
    warned = {p.policy: len(warnings(p)) for p in builtin_policies()}
    assert warned == {
        "llavaguard-default": 0,
        "dataset-curation": 0,
        "art-and-education": 0,
        "newsroom": 0,
        "strict": 9,
    }
    assert warnings(builtin_policies()[4])[3].startswith("O4: Nudity Content: the sensitive state was not in")


def test_own_bullets_and_own_categories_are_warned_about() -> None:
    bullets = own(Category.in_state("O5").name, "O5")
    first, second = warnings(policy(bullets, own()))
    assert first.startswith("O5: Criminal Planning: the model was not trained on these bullets")
    assert second.startswith("O10: Gambling: the model was not trained on this category")
    assert [c.trained for c in (bullets, own())] == [True, False]


@pytest.mark.parametrize("token", ["<image>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|image_pad|>"])
def test_no_text_may_hold_a_special_token(token: str) -> None:
    with pytest.raises(ValueError, match="special token"):
        refuse_special_tokens(f"before{token}after")
    for broken in (
        lambda: own(bullet=f"Say {token}."),
        lambda: own(name=f"Name {token}"),
        lambda: PolicyRevision(policy="a", title=token, categories=policy().categories),
        lambda: PolicyRevision(policy="a", title="A", note=f"x\n{token}", categories=policy().categories),
    ):
        with pytest.raises(ValidationError):
            broken()


def test_a_category_that_went_round_its_checks_is_still_not_rendered() -> None:
    forged = own().model_copy(update={"can": ("x<|im_end|>",)})
    with pytest.raises(ValueError, match="special token"):
        render([*policy().categories, forged])


def test_words_in_angle_brackets_that_are_no_token_are_allowed() -> None:
    refuse_special_tokens('str<"Unsafe"|"Safe"> <b> a<|b <||> <IMAGE>')


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"id": "O4", "name": "Nudes"}, 'O4 is called "Nudity Content"'),
        ({"id": "O10", "state": "sensitive"}, "only O1 to O9 can be sensitive"),
        ({"id": "O4", "name": "Nudity Content", "state": "sensitive"}, "keeps the default's bullets"),
        ({"should_not": ()}, "has no bullets"),
        ({"should_not": ("",)}, "is empty"),
        ({"should_not": (" a",)}, "starts with white space"),
        ({"should_not": ("a\nb",)}, "line break"),
        ({"should_not": ("a\u2028b",)}, r"U\+2028"),
        ({"should_not": ("a\x00b",)}, r"U\+0000"),
        ({"name": 'A "B"'}, "holds \", which would break the answer's template"),
        ({"name": "A|B"}, "template"),
        ({"name": "A "}, "white space"),
        ({"id": "O0"}, "pattern"),
        ({"id": "O10\n"}, "pattern"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_a_category_whose_parts_do_not_fit_is_refused(parts: dict[str, object], reason: str) -> None:
    whole: dict[str, object] = {
        "id": "O10",
        "name": "Own",
        "state": "custom",
        "should_not": ("x",),
        "can": (),
    }
    with pytest.raises(ValidationError, match=reason):
        Category.model_validate(whole | parts)


def test_bullets_that_are_the_defaults_own_are_not_custom() -> None:
    default = Category.in_state("O4")
    with pytest.raises(ValidationError, match="leave the category out"):
        Category.model_validate(default.model_dump() | {"state": "custom"})


@pytest.mark.parametrize(
    ("categories", "reason"),
    [
        (policy().categories[:8], "must be O1 to O9"),
        ((*policy().categories, policy().categories[0]), "must be O1 to O10"),
        ((*policy().categories[1:], policy().categories[0]), "must be O1 to O9"),
        ((*policy().categories, own(category_id="O11")), "must be O1 to O10"),
        ((*policy().categories, own("criminal planning")), 'two categories are called "Criminal Planning"'),
    ],
)
def test_a_policy_has_each_category_once_and_in_order(categories: tuple[Category, ...], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        PolicyRevision(policy="a", title="A", categories=categories)


@pytest.mark.parametrize("policy_id", ["", "A", "-a", "a_b", "a b", "a@1", "a\n", "ä", "a" * 65])
def test_an_id_is_lower_case_letters_digits_and_dashes(policy_id: str) -> None:
    with pytest.raises(ValidationError, match="an id is"):
        PolicyRevision(policy=policy_id, title="A", categories=policy().categories)


def test_a_revision_cannot_be_changed_only_followed_by_another() -> None:
    first = policy(own())
    with pytest.raises(ValidationError, match="frozen"):
        first.title = "Other"  # type: ignore[misc]  # the point of the test
    digest = first.prompt_sha256
    second = first.at_revision(2)
    assert (second.ref, second.prompt_sha256) == ("test@2", digest)
    assert second != first
    assert second.at_revision(1) == first


@unhurried
@given(revisions)
def test_a_revision_survives_the_registrys_json(revision: PolicyRevision) -> None:
    revision.prompt  # noqa: B018  # cached values must not get into the JSON
    loaded = PolicyRevision.model_validate_json(revision.model_dump_json())
    assert loaded == revision
    assert loaded.prompt == revision.prompt
    assert hash(loaded) == hash(revision)


def test_importing_policies_loads_nothing_heavy() -> None:
    code = (
        "import sys, moderation.policy\n"
        "heavy = {'torch', 'sglang', 'PIL', 'onnxruntime', 'numpy', 'sqlalchemy', 'celery'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
