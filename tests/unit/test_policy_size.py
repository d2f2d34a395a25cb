"""The bound on a policy's tokens. It rests on counts by the model's tokenizer: bench/policy_tokens.py."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.errors import PolicyError
from moderation.policy import CategoryState, PolicyRevision, builtin_policies, check_size, token_bound
from moderation.policy.size import LARGEST_IMAGE_TOKENS, text_bound
from tests.unit.policy_strategies import revisions, unhurried
from tests.unit.test_policy import own, policy


def test_the_default_has_the_tokens_that_the_models_tokenizer_counts() -> None:
    assert token_bound(builtin_policies()[0]) == 1108


def test_every_builtin_fits_beside_the_largest_image() -> None:
    for revision in builtin_policies():
        check_size(revision)


def test_a_context_of_10240_is_too_short_for_the_default_beside_the_largest_image_and_a_full_answer() -> None:
    default = builtin_policies()[0]
    with pytest.raises(
        PolicyError, match=r"may take 1108 tokens, and a context of 10240 has 884 beside an image"
    ):
        check_size(default, context_tokens=10_240)
    check_size(default, context_tokens=10_240, image_tokens=7_400)


def test_a_policy_fits_to_the_token() -> None:
    default = builtin_policies()[0]
    needed = 1108 + 21 + LARGEST_IMAGE_TOKENS + 500 + 6
    check_size(default, context_tokens=needed)
    with pytest.raises(PolicyError):
        check_size(default, context_tokens=needed - 1)


def test_a_policy_as_long_as_the_default_again_in_own_words_fits() -> None:
    words = "Contain content that shows people who bet money on games of chance in a casino. "
    long = policy(*(own(f"Own {n}", f"O{n}", words * 3) for n in range(10, 18)))
    check_size(long)
    with pytest.raises(PolicyError, match="shorten its bullets"):
        check_size(policy(own(bullet=words * 100)))


@pytest.mark.parametrize("language", ["English", "Chinese"])
def test_the_room_that_the_documents_promise_is_there(language: str) -> None:
    """Beside the default's nine: 4,000 characters of English, or 1,700 bytes of Chinese."""
    words = " ".join(b for c in builtin_policies()[0].categories for b in (*c.should_not, *c.can))
    text = (words + words)[:4_000] if language == "English" else "禁止展示赌博。" * 81
    assert len(text.encode()) == (4_000 if language == "English" else 1_701)
    bullets = tuple(text[start : start + 200].strip() for start in range(0, len(text), 200))
    check_size(policy(own().model_copy(update={"should_not": bullets, "can": ()})))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        (" people", 1),  # a known word after a space
        ("people", 6),  # not after a space: bytes
        (" peoplé", 8),  # a letter follows
        (" peopleX", 8),
        (" them\u0301", 7),  # composed to " the" and a letter of three bytes: not the word "the"
        (" people, people", 3),
        (" qxzqxz", 7),  # no known word
        ("漢字", 6),
        ("e\u0301", 2),  # composed by the tokenizer to one letter of two bytes
        ("", 0),
    ],
)
def test_unknown_text_counts_its_bytes_and_known_words_one(text: str, tokens: int) -> None:
    assert text_bound(text) == tokens


@unhurried
@given(st.text(), st.text())
def test_a_bound_is_between_nothing_and_bytes_and_grows_by_lines(one: str, two: str) -> None:
    size = len(unicodedata.normalize("NFC", one).encode(errors="surrogatepass"))
    assert (0 < text_bound(one) <= size) if one else text_bound(one) == 0
    assert text_bound(f"{one}\n{two}") == text_bound(one) + 1 + text_bound(two)


@unhurried
@given(revisions)
def test_a_policys_bound_is_no_looser_than_its_bytes(revision: PolicyRevision) -> None:
    assert 0 < token_bound(revision) <= len(unicodedata.normalize("NFC", revision.prompt).encode())
    plain = all(c.state is not CategoryState.CUSTOM for c in revision.categories)
    if plain:
        assert token_bound(revision) <= 1342  # all nine non-violating
