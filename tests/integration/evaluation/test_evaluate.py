"""`vetline evaluate` over verdicts that are there: figures, what is not scored, the same bytes again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from moderation.errors import BadSource, InvalidSubmission
from tests.integration.evaluation.conftest import Vetline
from tests.support.labelled import Made, judged_batch, of_counts

Told = Callable[..., Any]
EVALUATE = ("evaluate", "batch:set", "--policy", "llavaguard-default@1", "--draws", "500")


@pytest.fixture
def published(ledger: Engine) -> Engine:
    """The confusion counts of the published 0.5B run, as 824 verdicts."""
    judged_batch(ledger, of_counts(312, 48, 43, 421), batch="set")
    return ledger


def test_a_batch_of_the_ledger_gives_the_published_figures(published: Engine, told: Told) -> None:
    report = told(*EVALUATE)
    assert report["confusion"] == {"tp": 312, "fn": 48, "fp": 43, "tn": 421}
    figures = {
        name: 100 * report["metrics"][name]["value"]
        for name in ("recall", "precision", "balanced_accuracy", "f1")
    }
    assert figures == pytest.approx(
        {"recall": 86.67, "precision": 87.89, "balanced_accuracy": 88.70, "f1": 87.28}, abs=0.1
    )
    assert report["verdicts_of"][0]["weights_sha256"] == "a" * 64
    assert report["cost"]["prompt_tokens"] == 824 * 3000


def test_the_same_input_and_seed_give_the_same_bytes_and_the_same_run(
    published: Engine, vetline: Vetline, tmp_path: Path
) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    vetline(*EVALUATE, "--report", str(first))
    vetline(*EVALUATE, "--report", str(second))
    names = sorted(path.name for path in first.iterdir())
    plots = {"confusion.png", "roc.png", "reliability.png", "slices.png"}
    assert set(names) == {"report.html", "report.json", *plots}
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert len(json.loads(vetline("evaluations", "list", "--json"))) == 1
    vetline(*EVALUATE, "--seed", "5")
    assert len(json.loads(vetline("evaluations", "list", "--json"))) == 2


def test_a_run_cannot_be_changed(published: Engine, vetline: Vetline) -> None:
    vetline(*EVALUATE)
    for statement in ("UPDATE evaluation_run SET seed = 1", "DELETE FROM evaluation_item"):
        with published.connect() as connection, pytest.raises(Exception, match="append-only"):
            connection.execute(text(statement))


def test_failures_are_counted_by_code_and_never_scored(published: Engine, told: Told) -> None:
    with published.connect() as connection:
        connection.execute(
            text("""
                INSERT INTO assessment (id, uri, policy, policy_revision_id, batch, priority, metadata, state, error_code,
                                        ended_at)
                SELECT gen_random_uuid(), 'https://images.test/x', policy, id, 'set', 1, '{"label": "Unsafe"}', 'failed',
                       code, now()
                FROM policy_revision, unnest(ARRAY['not_found', 'not_found', 'malformed_answer']) AS code
                WHERE policy = 'llavaguard-default'
            """)
        )
    report = told(*EVALUATE, code=3)
    assert report["not_scored"] == {"not_found": 2, "malformed_answer": 1}
    assert report["scored"] == 824
    assert report["metrics"]["recall"]["n"] == 360
    assert report["metrics"]["unassessed"]["n"] == 827


def test_rows_of_a_file_meet_the_verdicts_that_are_there(ledger: Engine, told: Told, tmp_path: Path) -> None:
    judged_batch(ledger, of_counts(3, 1, 1, 3), batch="live", purpose=None)
    rows = [f"https://images.test/{n}.jpg,{'unsafe' if n < 4 else 'safe'}" for n in range(9)]
    (tmp_path / "set.csv").write_text("\n".join(["url,rating", *rows]))
    report = told(
        "evaluate", str(tmp_path / "set.csv"), "--policy", "llavaguard-default", "--existing", code=3
    )
    assert report["confusion"] == {"tp": 3, "fn": 1, "fp": 1, "tn": 3}
    assert report["not_scored"] == {"not_judged": 1}
    assert "only 4 scored rows are labelled Unsafe: intervals are wide" in report["warnings"]


def test_only_verdicts_of_the_model_that_is_named_are_scored(ledger: Engine, told: Told) -> None:
    judged_batch(ledger, of_counts(30, 4, 4, 30), batch="set")
    judged_batch(ledger, [Made(n, True, False) for n in range(100, 105)], batch="other", model="Another")
    with ledger.connect() as connection:
        connection.execute(text("UPDATE assessment SET batch = 'set' WHERE batch = 'other'"))
    both = told(*EVALUATE)
    assert any("passes no gate" in line for line in both["warnings"])
    one = told(*EVALUATE, "--model", "LlavaGuard-v1.2-0.5B-OV")
    assert one["not_scored"] == {"other_model": 5}
    assert one["scored"] == 68


def test_rows_labelled_under_other_rules_are_left_out(ledger: Engine, told: Told, tmp_path: Path) -> None:
    """LlavaGuard-DS rates an image under several policies: under one, only its own rows say anything."""
    judged_batch(ledger, of_counts(1, 0, 0, 0), batch="live", purpose=None)
    default = ledger.connect().execute(
        text("SELECT prompt FROM policy_revision WHERE policy = 'llavaguard-default'")
    )
    prompt = default.scalar_one()
    default.connection.close()
    lines = [
        {
            "id": "1",
            "url": "https://images.test/0.jpg",
            "rating": "Unsafe",
            "category": "O2: X",
            "policy": prompt,
        },
        {
            "id": "1_v2",
            "url": "https://images.test/0.jpg",
            "rating": "Safe",
            "category": "O2: X",
            "policy": "Other rules.",
        },
    ]
    path = tmp_path / "ds.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    report = told("evaluate", str(path), "--policy", "llavaguard-default", "--existing")
    assert report["not_scored"] == {"other_policy": 1}
    assert report["confusion"]["tp"] == 1


def test_slices_comparison_and_flips(ledger: Engine, told: Told, vetline: Vetline) -> None:
    before = [
        Made(n, n < 60, n % 10 != 0 if n < 60 else n % 7 == 0, source="web" if n % 2 else "drawn")
        for n in range(160)
    ]
    better = [Made(r.n, r.unsafe, r.unsafe if r.n < 70 else r.said_unsafe, source=r.source) for r in before]
    judged_batch(ledger, before, batch="set")
    first = told(*EVALUATE, "--group", "source")
    assert set(first["metrics"]["group"]["source"]) == {"drawn", "web"}
    run = first["run"]
    judged_batch(ledger, better, batch="again")
    found = told("evaluate", "batch:again", *EVALUATE[2:], "--group", "source", "--against", run)[
        "comparison"
    ]
    assert found["paired_rows"] == 160
    assert (found["mcnemar"]["only_before"], found["mcnemar"]["only_after"]) == (0, 7)
    assert found["mcnemar"]["p"] == pytest.approx(2 / 2**7)
    assert found["differences"]["recall"]["value"] == pytest.approx(6 / 60)
    assert (found["flips"]["gained"], found["flips"]["lost"], found["flips"]["to_unsafe"]) == (7, 0, 6)
    assert all(each["p_holm"] >= each["p"] for each in found["slices"].values())
    assert told("evaluations", "compare", run, run)["flips"]["rows"] == []
    listed = vetline("evaluations", "list")
    assert run[:8] in listed
    assert "recall" in vetline("evaluations", "show", run[:8])
    rows = vetline("evaluations", "show", run, "--rows").splitlines()
    assert len(rows) == 160


def test_what_cannot_be_measured_says_so(ledger: Engine, vetline: Vetline, tmp_path: Path) -> None:
    with pytest.raises(InvalidSubmission, match="--own-policies"):
        vetline("evaluate", "batch:set")
    with pytest.raises(BadSource, match="no batch"):
        vetline(*EVALUATE)
    (tmp_path / "set.csv").write_text("url,score\nhttps://images.test/1.jpg,1\n")
    with pytest.raises(BadSource, match="--label-column"):
        vetline("evaluate", str(tmp_path / "set.csv"), "--policy", "llavaguard-default")
