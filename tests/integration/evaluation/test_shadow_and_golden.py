"""Shadow and golden items: drawn as live items are submitted, judged like any, seen by no reader."""

from typing import Any

import pytest
from sqlalchemy import Engine, text

from consumer.evaluation.shadowed import summarise
from moderation.cursor import START
from moderation.errors import InvalidSubmission
from moderation.ledger import golden, registry, shadow
from moderation.ledger.export import ExportFilter, snapshot, totals, verdict_pages
from moderation.ledger.feed import read
from moderation.ledger.submit import new_id
from moderation.policy import PolicyRevision
from moderation.verdict import Rating
from tests.support.ledger import POLICY, claimed, record, submitted, verdict

Rows = list[dict[str, Any]]


def rows(engine: Engine, query: str) -> Rows:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(query)).mappings()]


@pytest.fixture
def candidate(ledger: Engine) -> str:
    """A revision that is not live: another was added behind it."""
    current = registry.find(ledger, POLICY).content
    fields = current.model_dump(exclude={"revision"}) | {"title": "Candidate"}
    made = registry.add(ledger, PolicyRevision(**fields), by="ann", reason="to be tried").policy.ref
    back = registry.add(
        ledger, PolicyRevision(**(fields | {"title": "Live"})), by="ann", reason="live"
    ).policy.ref
    assert registry.find(ledger, back).current
    return made


def judge(engine: Engine, id_: Any, rating: Rating) -> None:
    claim = claimed(engine, id_, worker="w1")
    made = verdict(rating=rating)
    image = made.image.model_copy(update={"pixels_sha256": str(claim.uri)})
    record(engine, claim, made.model_copy(update={"image": image}), worker="w1")


def purposes(engine: Engine, purpose: str) -> Rows:
    return rows(engine, f"SELECT * FROM assessment WHERE purpose = '{purpose}' ORDER BY id")


def test_a_share_of_live_items_is_judged_under_the_candidate_too(ledger: Engine, candidate: str) -> None:
    shadow.start_shadow(ledger, candidate, 0.3, by="ann")
    live = [submitted(ledger, f"https://images.test/{n}.jpg?sig=secret") for n in range(200)]
    drawn = purposes(ledger, "shadow")
    assert 35 <= len(drawn) <= 85
    assert {row["purpose_of"] for row in drawn} <= {*live}
    assert {row["priority"] for row in drawn} == {2}
    assert all(row["uri"].endswith("?sig=secret") for row in drawn), (
        "fetched before the signature is cut away"
    )
    assert shadow.stop_shadow(ledger, candidate, by="ann")
    submitted(ledger)
    assert len(purposes(ledger, "shadow")) == len(drawn)


def test_nothing_of_a_shadow_is_in_feed_views_exports_or_counts(ledger: Engine, candidate: str) -> None:
    shadow.start_shadow(ledger, candidate, 1, by="ann")
    id_ = submitted(ledger)
    (beside,) = purposes(ledger, "shadow")
    assert len(rows(ledger, "SELECT * FROM unassessed")) == 1
    judge(ledger, id_, Rating.SAFE)
    judge(ledger, beside["id"], Rating.UNSAFE)
    assert [v.assessment_id for v in read(ledger, START).verdicts] == [id_]
    for view in ("feed", "verdict_history", "verdict_current"):
        assert [row["assessment_id"] for row in rows(ledger, f"SELECT assessment_id FROM {view}")] == [id_], (
            view
        )
    with snapshot(ledger) as connection:
        assert [row[0] for page in verdict_pages(connection, ExportFilter()) for row in page] == [str(id_)]
        counted = totals(connection, ExportFilter())
    assert (counted["total"], counted["safe"], counted["unsafe"]) == (1, 1, 0)


def test_the_report_has_flips_with_intervals_and_the_cost(ledger: Engine, candidate: str) -> None:
    shadow.start_shadow(ledger, candidate, 1, by="ann")
    for n in range(40):
        id_ = submitted(ledger, f"https://images.test/{n}.jpg")
        (beside,) = rows(ledger, f"SELECT id FROM assessment WHERE purpose_of = '{id_}'")
        judge(ledger, id_, Rating.SAFE)
        judge(ledger, beside["id"], Rating.UNSAFE if n < 6 else Rating.SAFE)
    found = summarise(shadow.seen(ledger, shadow.shadow_of(ledger, candidate), limit=3))
    assert (found["pairs"], found["to_unsafe"]["value"]) == (40, pytest.approx(6 / 40))
    assert found["to_unsafe"]["lower95"] == pytest.approx(0.0706, abs=0.001)  # Wilson, 6 of 40
    change = found["change_of_unsafe"]
    assert change["value"] == pytest.approx(6 / 40)
    assert 0.02 < change["lower95"] < change["value"] < change["upper95"] < 0.3
    assert found["mcnemar_p"] == pytest.approx(2 / 2**6)
    assert len(found["flips"]) == 3
    assert found["cost"]["judge_s"] == pytest.approx(40 * 0.003)


def test_what_is_live_cannot_be_its_own_shadow(ledger: Engine) -> None:
    with pytest.raises(InvalidSubmission, match="is live"):
        shadow.start_shadow(ledger, POLICY, 0.5, by="ann")


def known(ledger: Engine) -> None:
    items = [golden.NewItem(f"https://images.test/golden-{n}.jpg", n < 5, None) for n in range(10)]
    assert golden.add_golden(ledger, POLICY, items, by="ann") == 10
    assert golden.add_golden(ledger, POLICY, items, by="ann") == 0


def test_golden_items_are_judged_beside_live_ones_at_a_rate(ledger: Engine) -> None:
    known(ledger)
    submitted(ledger)
    assert purposes(ledger, "golden") == []
    golden.set_rate(ledger, POLICY, 0.5, by="ann")
    for n in range(100):
        submitted(ledger, f"https://images.test/{n}.jpg")
    drawn = purposes(ledger, "golden")
    assert 30 <= len(drawn) <= 70
    assert len({row["purpose_of"] for row in drawn}) > 5
    assert not any(row["reuse"] for row in drawn)
    golden.set_rate(ledger, POLICY, 0, by="ann")
    submitted(ledger)
    assert len(purposes(ledger, "golden")) == len(drawn)


def test_recall_and_specificity_are_of_the_last_golden_items(ledger: Engine) -> None:
    known(ledger)
    golden.set_rate(ledger, POLICY, 1, by="ann")
    for n in range(60):
        submitted(ledger, f"https://images.test/{n}.jpg")
    unsafe = {row["id"]: row["unsafe"] for row in rows(ledger, "SELECT id, unsafe FROM golden_item")}
    missed = 0
    for row in purposes(ledger, "golden"):
        is_unsafe = unsafe[row["purpose_of"]]
        miss = is_unsafe and missed < 3
        missed += miss
        judge(ledger, row["id"], Rating.UNSAFE if is_unsafe and not miss else Rating.SAFE)
    (found,) = golden.recent(ledger)
    assert (found["fn"], found["fp"]) == (3, 0)
    assert found["tp"] + found["fn"] + found["fp"] + found["tn"] == 60


def test_scores_that_move_from_one_week_to_the_next_have_a_high_psi(ledger: Engine) -> None:
    with ledger.connect() as connection:
        for week, low, high in ((0, 0.0, 0.5), (1, 0.0, 1.0)):
            for n in range(400):
                p = low + (high - low) * (n + 0.5) / 400
                id_ = connection.execute(
                    text(
                        "SELECT vetline_id_of_time(now() - make_interval(days => 7 * :week + 1, mins => :n))"
                    ),
                    {"week": week, "n": n},
                ).scalar_one()
                connection.execute(
                    text("""
                        WITH a AS (
                            INSERT INTO assessment (id, uri, policy, policy_revision_id, priority, state, attempt, ended_at)
                            SELECT CAST(overlay(CAST(:id AS text) placing :tail from 25) AS uuid),
                                   'https://i.test/x', policy, id, 1, 'done', 1, now()
                            FROM policy_revision WHERE policy = 'llavaguard-default' RETURNING id, policy_revision_id
                        )
                        INSERT INTO verdict (assessment_id, attempt, policy_revision_id, rating, category, rationale,
                            rationale_truncated, needs_review, p_unsafe, rung, judge, model, runtime, runtime_version,
                            bytes_sha256, pixels_sha256, media_type, width, height, frames, byte_count, view)
                        SELECT id, 1, policy_revision_id, 'Safe', 'NA', '', false, false, :p, 'strict', 'sglang', 'm',
                               'sglang', '0.5', 'b', 'c', 'image/jpeg', 1, 1, 1, 1, 'whole' FROM a
                    """),
                    {"id": str(id_), "tail": f"{new_id().hex[-12:]}", "p": p},
                )
    found = golden.population_stability(golden.weekly_scores(ledger))
    assert found[POLICY] > 0.25
    assert golden.population_stability([{"policy": "p", "week": w, "bin": 3, "n": 500} for w in (0, 1)]) == {
        "p": 0.0
    }
    assert golden.population_stability([{"policy": "p", "week": 0, "bin": 3, "n": 500}]) == {}
