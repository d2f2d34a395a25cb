"""Hypothesis strategies for policies: any text that a policy may hold, not only English."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from moderation.policy import Category, CategoryState, PolicyRevision
from moderation.policy.text import SPECIAL_TOKEN

# Two cores are shared with the other tests: how long one example takes says nothing.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

KNOWN = [f"O{n}" for n in range(1, 10)]
STATES = [CategoryState.DEFAULT, CategoryState.NON_VIOLATING, CategoryState.SENSITIVE]
TRICKY = [
    *("no", "~", "1.0", "- dash", "Can:", "Should not:", "O4: Nudity Content: ", "Assessment Steps:"),
    *(
        "# not a comment",
        "a: b",
        "{a}",
        'say "hi"',
        "it's",
        "trailing \u3000",
        "&anchor",
        "*alias",
        "!tag",
        "<<",
    ),
    *("\ufeff", "%", "'", '"', "\\", "|", ">-", "?", "null", "2001-01-01", "e\u0301", "=", "a #b", "a\u00a0"),
]

_characters = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])
_lines = st.text(_characters, min_size=1, max_size=40) | st.sampled_from(TRICKY)
bullets = _lines.filter(
    lambda text: text.strip() and not text[0].isspace() and not SPECIAL_TOKEN.search(text)
)
names = _lines.map(lambda text: "".join(c for c in text if c not in '":|\\<>').strip()).filter(bool)
notes = (
    st.lists(_lines | st.just(""), max_size=5)
    .map("\n".join)
    .filter(lambda text: not text or (text.strip() and not SPECIAL_TOKEN.search(text)))
)
_bullet_lists = st.lists(bullets, max_size=3).map(tuple)


@st.composite
def categories(draw: st.DrawFn, category_id: str, name: str) -> Category:
    """One with bullets of its own."""
    should_not, can = draw(st.tuples(_bullet_lists, _bullet_lists).filter(any))
    return Category(id=category_id, name=name, state=CategoryState.CUSTOM, should_not=should_not, can=can)


@st.composite
def category_tuples(draw: st.DrawFn) -> tuple[Category, ...]:
    """The nine in any state, two at most with bullets of their own, and up to three own categories."""
    known = {id_: Category.in_state(id_, draw(st.sampled_from(STATES))) for id_ in KNOWN}
    for id_ in draw(st.lists(st.sampled_from(KNOWN), max_size=2, unique=True)):
        known[id_] = draw(categories(id_, known[id_].name))
    taken = {c.name.casefold() for c in known.values()}
    own_names = draw(st.lists(names, max_size=3, unique_by=str.casefold))
    own_names = [name for name in own_names if name.casefold() not in taken]
    own = [draw(categories(f"O{number}", name)) for number, name in enumerate(own_names, start=10)]
    return (*known.values(), *own)


revisions = st.builds(
    PolicyRevision,
    policy=st.from_regex(r"[a-z0-9][a-z0-9-]{0,63}", fullmatch=True),
    revision=st.integers(1, 10**9 - 1),
    title=bullets,
    note=notes,
    categories=category_tuples(),
)
