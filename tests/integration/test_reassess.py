"""Judging again when a policy changes: each verdict once, at low priority; and what the change did, nothing folded in."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from uuid import UUID

import click.testing
import pytest
import typer
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from moderation.cli import policy as cli_policy
from moderation.cli import reassess as cli_reassess
from moderation.errors import InvalidSubmission, NotFound, UnknownPolicy
from moderation.ledger import reassess as ledger_reassess
from moderation.ledger.impact import Impact, impact
from moderation.ledger.outcomes import fail
from moderation.ledger.reassess import (
    Reassessed,
    ReassessFilter,
    RevisionChange,
    count_chosen,
    reassess,
    revision_change,
)
from moderation.ledger.registry import add, retire
from moderation.ledger.retry import cancel_queued
from moderation.ledger.selection import Selection
from moderation.policy import load_policy
from moderation.verdict import Rating
from tests.support.ledger import LOW, claimed, record, row, submitted, verdict

NUDITY, CRIME, NONE = "O4: Nudity Content", "O5: Criminal Planning", "NA: None applying"
FILE = "policy: city-news\ntitle: City news desk\n"


@pytest.fixture
def change(ledger: Engine) -> RevisionChange:
    """Two revisions of a policy."""
    add(ledger, load_policy(FILE, source="1.yaml"), by="anna")
    add(
        ledger,
        load_policy(FILE + "categories: {O5: sensitive}\n", source="2.yaml"),
        by="anna",
        reason="trial",
    )
    return revision_change(ledger, "city-news", from_revision=1, to_revision=2)


def judged(
    ledger: Engine,
    category: str = NONE,
    *,
    uri: str = "https://images.test/1.jpg",
    policy: str = "city-news@1",
) -> UUID:
    """The id of an assessment that has its verdict: Safe where no category applies."""
    rating = Rating.SAFE if category == NONE else Rating.UNSAFE
    item = claimed(ledger, submitted(ledger, uri, policy=policy, metadata={"n": 1}))
    record(ledger, item, verdict(rating=rating, category=category), worker="w1")
    return item.id


def again(ledger: Engine, change: RevisionChange, choice: ReassessFilter | None = None) -> Reassessed:
    return sum(reassess(ledger, change, choice or ReassessFilter(), batch="again"), start=Reassessed())


def of(ledger: Engine, old: UUID) -> UUID:
    """The assessment that judges an old one again."""
    with ledger.connect() as connection:
        query = text("SELECT id FROM assessment WHERE reassesses = :old")
        found: UUID = connection.execute(query, {"old": old}).scalar_one()
    return found


def chosen(ledger: Engine) -> set[UUID]:
    """What was judged again."""
    with ledger.connect() as connection:
        return set(
            connection.execute(
                text("SELECT reassesses FROM assessment WHERE reassesses IS NOT NULL")
            ).scalars()
        )


def answered(ledger: Engine, old: UUID, category: str = NONE, **judgement: str) -> None:
    rating = Rating.SAFE if category == NONE else Rating.UNSAFE
    item = claimed(ledger, of(ledger, old))
    record(ledger, item, verdict(rating=rating, category=category, **judgement), worker="w1")


def test_each_verdict_is_judged_again_once_however_often_it_is_asked_for(
    ledger: Engine, change: RevisionChange
) -> None:
    olds = [judged(ledger) for _ in range(5)]
    judged(ledger, policy="strict")
    submitted(ledger, policy="city-news@1")
    assert count_chosen(ledger, change, ReassessFilter()) == 5
    assert again(ledger, change) == Reassessed(queued=5)
    assert again(ledger, change) == Reassessed(known=5)
    late = judged(ledger)
    assert again(ledger, change) == Reassessed(queued=1, known=5)
    new = row(ledger, of(ledger, late))
    assert (new["policy_revision_id"], new["priority"], new["batch"], new["state"]) == (
        change.after,
        LOW,
        "again",
        "queued",
    )
    assert (new["uri"], new["metadata"]) == (row(ledger, late)["uri"], {"n": 1})
    assert chosen(ledger) == {*olds, late}


def test_it_goes_on_in_pages_where_it_was_broken_off(
    ledger: Engine, change: RevisionChange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_reassess, "_PAGE", 2)
    for _ in range(5):
        judged(ledger)
    broken_off: Iterator[Reassessed] = reassess(ledger, change, ReassessFilter(), batch="again")
    assert next(broken_off) == Reassessed(queued=2)
    pages = list(reassess(ledger, change, ReassessFilter(), batch="again"))
    assert pages == [Reassessed(known=2), Reassessed(queued=2), Reassessed(queued=1)]


def test_only_what_was_judged_so_is_judged_again(ledger: Engine, change: RevisionChange) -> None:
    safe, nude, crime = judged(ledger), judged(ledger, NUDITY), judged(ledger, CRIME)
    assert again(ledger, change, ReassessFilter(category="O10")) == Reassessed()
    assert again(ledger, change, ReassessFilter(category="O4")) == Reassessed(queued=1)
    assert chosen(ledger) == {nude}
    assert again(ledger, change, ReassessFilter(rating="Unsafe", category="O5")) == Reassessed(queued=1)
    assert chosen(ledger) == {nude, crime}
    assert again(ledger, change, ReassessFilter(rating="Unsafe")) == Reassessed(known=2)
    assert again(ledger, change, ReassessFilter(rating="Safe")) == Reassessed(queued=1)
    assert chosen(ledger) == {nude, crime, safe}


def test_a_sample_is_the_same_each_time_and_within_a_larger_one(
    ledger: Engine, change: RevisionChange
) -> None:
    for _ in range(12):
        judged(ledger)
    assert again(ledger, change, ReassessFilter(sample=3)) == Reassessed(queued=3)
    assert again(ledger, change, ReassessFilter(sample=3)) == Reassessed(known=3)
    assert again(ledger, change, ReassessFilter(sample=7)) == Reassessed(queued=4, known=3)
    assert again(ledger, change, ReassessFilter(sample=100)) == Reassessed(queued=5, known=7)


def test_images_whose_uris_held_a_secret_or_themselves_are_counted_and_not_queued(
    ledger: Engine, change: RevisionChange
) -> None:
    kept = judged(ledger, uri="https://images.test/1.jpg")
    for uri in ("data:image/png;base64,iVBORw0KGgo=", "https://images.test/1.jpg?X-Amz-Signature=c0ffee"):
        judged(ledger, uri=uri)
    assert again(ledger, change) == Reassessed(queued=1, gone=2)
    assert chosen(ledger) == {kept}


def test_a_change_is_between_two_revisions_that_exist_and_the_later_takes_images(
    ledger: Engine, change: RevisionChange
) -> None:
    with pytest.raises(InvalidSubmission, match="both revision 2"):
        revision_change(ledger, "city-news", from_revision=2, to_revision=2)
    with pytest.raises(UnknownPolicy, match="city-news@3"):
        revision_change(ledger, "city-news", from_revision=1, to_revision=3)
    retire(ledger, "city-news@1")
    judged(ledger, policy="city-news@2")
    assert again(ledger, change) == Reassessed(), "from a retired revision is what a change is for"
    retire(ledger, "city-news@2")
    with pytest.raises(UnknownPolicy, match="was retired on"):
        again(ledger, change)


@pytest.fixture
def flipped(ledger: Engine, change: RevisionChange) -> dict[str, UUID]:
    """One item of every outcome, by its name."""
    safe = ("to_unsafe", "still_safe", "queued", "running", "failed", "cancelled", "changed")
    olds = {name: judged(ledger, uri=f"https://u:pw@images.test/{name}.jpg") for name in safe}
    olds |= {name: judged(ledger, NUDITY) for name in ("to_safe", "still_unsafe", "other_category")}
    again(ledger, change)
    judged(ledger)  # came after
    answered(ledger, olds["to_unsafe"], CRIME)
    answered(ledger, olds["to_safe"])
    answered(ledger, olds["still_safe"])
    answered(ledger, olds["still_unsafe"], NUDITY)
    answered(ledger, olds["other_category"], CRIME)
    claimed(ledger, of(ledger, olds["running"]))
    lost = claimed(ledger, of(ledger, olds["failed"]))
    fail(ledger, lost, NotFound("404"), worker="w1", timings_ms={})
    cancel_queued(ledger, Selection(ids=(of(ledger, olds["cancelled"]),)))
    other_bytes = verdict(rating=Rating.UNSAFE, category=NUDITY)
    image = other_bytes.image.model_copy(update={"bytes_sha256": "d" * 64})
    item = claimed(ledger, of(ledger, olds["changed"]))
    record(ledger, item, other_bytes.model_copy(update={"image": image}), worker="w1")
    return olds


def test_impact_counts_every_outcome_once_and_folds_none_into_safe(
    ledger: Engine, change: RevisionChange, flipped: dict[str, UUID]
) -> None:
    found = impact(ledger, change, limit=10)
    items, found.items = found.items, []
    assert found == Impact(
        verdicts=11,
        to_unsafe=Counter({CRIME: 1, NUDITY: 1}),
        to_safe=Counter({NUDITY: 1}),
        still_safe=1,
        still_unsafe=2,
        other_category=1,
        open=2,
        cancelled=1,
        failed=Counter({"not_found": 1}),
        image_changed=1,
    )
    assert (found.flips, found.judged, found.reassessed) == (3, 6, 10)
    assert {item["before"] for item in items} == {
        flipped[name] for name in ("to_unsafe", "to_safe", "changed")
    }
    by_old = {item["before"]: item for item in items}
    crime = by_old[flipped["to_unsafe"]]
    assert (crime["rating_before"], crime["category_before"]) == ("Safe", NONE)
    assert (crime["rating_after"], crime["category_after"]) == ("Unsafe", CRIME)
    assert [by_old[flipped[name]]["image_changed"] for name in ("to_unsafe", "changed")] == [False, True]
    assert len(impact(ledger, change, limit=2).items) == 2


# --- the commands

Run = Callable[..., click.testing.Result]


@pytest.fixture
def run(services_env: dict[str, str]) -> Run:
    app = typer.Typer()
    app.add_typer(cli_policy.commands)
    app.add_typer(cli_reassess.commands)
    return lambda *words: CliRunner().invoke(app, list(words), catch_exceptions=False)


CHANGE = ("--from", "1", "--to", "2")


def test_the_commands_say_what_was_queued_and_what_it_changed(
    run: Run, ledger: Engine, change: RevisionChange, flipped: dict[str, UUID]
) -> None:
    told = run("reassess", "--policy", "city-news", *CHANGE)
    assert told.stderr.endswith(
        "city-news@1 -> city-news@2: queued 1, known 10, batch reassess-city-news-1-2\n"
    )
    again_ = json.loads(
        run("reassess", "--policy", "city-news", *CHANGE, "--only", "unsafe", "--json").stdout
    )
    assert (again_["queued"], again_["known"], again_["gone"]) == (0, 3, 0)
    shown = run("policy", "impact", "city-news", *CHANGE)
    lines = shown.stdout.splitlines()
    assert lines[:8] == [
        "city-news@1 -> city-news@2: 6 of 11 verdicts judged again",
        "Safe -> Unsafe: 2",
        f"  {NUDITY}: 1",
        f"  {CRIME}: 1",
        "Unsafe -> Safe: 1",
        f"  {NUDITY}: 1",
        "unchanged: Safe 1, Unsafe 2 (1 for another category)",
        "no new verdict: open 3, failed 1 (not_found 1), cancelled 1",
    ]
    assert "to_unsafe.jpg" in shown.stdout
    assert "pw@" not in shown.stdout
    found = json.loads(run("policy", "impact", "city-news", *CHANGE, "--limit", "1", "--json").stdout)
    assert found["safe_to_unsafe"] == {"count": 2, "categories": {CRIME: 1, NUDITY: 1}}
    assert (found["open"], found["failed"], len(found["items"]), found["items_left_out"]) == (
        3,
        {"not_found": 1},
        1,
        2,
    )


def test_what_cannot_be_judged_again_is_said_and_shows_in_the_exit_code(
    run: Run, ledger: Engine, change: RevisionChange
) -> None:
    judged(ledger, uri="data:image/png;base64,iVBORw0KGgo=")
    told = run("reassess", "--policy", "city-news", *CHANGE, "--sample", "5", "--batch", "trial")
    assert told.exit_code == 3
    assert "1 cannot be judged again" in told.stderr
    with pytest.raises(InvalidSubmission, match="--only takes unsafe, safe, or a category"):
        run("reassess", "--policy", "city-news", *CHANGE, "--only", "blue")
