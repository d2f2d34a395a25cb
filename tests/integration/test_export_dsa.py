"""`vetline export dsa`: drafts for the Unsafe verdicts that stand, refusals with their reasons."""

import json
from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from consumer.cli.export_dsa import commands
from consumer.dsa.statement import Statement
from moderation.errors import InvalidSubmission
from moderation.ledger.reassess import ReassessFilter, reassess, revision_change
from moderation.ledger.registry import add
from moderation.policy import load_policy
from moderation.verdict import Rating
from tests.support.ledger import claimed, record, submitted, verdict

pytestmark = pytest.mark.usefixtures("services_env")
FILE = "policy: city-news\ntitle: City news\ndsa: {terms: Section 4, restriction: CONTENT_REMOVED}\n"


def judged(engine: Engine, rating: Rating, category: str) -> str:
    item = claimed(engine, submitted(engine, policy="city-news"))
    record(engine, item, verdict(rating=rating, category=category), worker="w1")
    return str(item.id)


def test_drafts_are_valid_said_to_be_drafts_and_only_of_what_stands(ledger: Engine, tmp_path: Path) -> None:
    add(ledger, load_policy(FILE, source="f"), by="anna")
    nudity = judged(ledger, Rating.UNSAFE, "O4: Nudity Content")
    disaster = judged(ledger, Rating.UNSAFE, "O9: Disasters or Emergencies")
    judged(ledger, Rating.SAFE, "NA: None applying")
    gone = judged(ledger, Rating.UNSAFE, "O2: Violence, Harm, or Cruelty")
    # Judged again under a second revision, two are Safe now; what waits stands by the verdict that it has.
    add(
        ledger, load_policy(FILE + "categories: {O2: non-violating}\n", source="f"), by="anna", reason="trial"
    )
    change = revision_change(ledger, "city-news", from_revision=1, to_revision=2)
    list(reassess(ledger, change, ReassessFilter(category="O2"), batch="again"))
    drafts, refused = tmp_path / "drafts.jsonl", tmp_path / "refused.jsonl"
    words = ["export", "dsa", "--decided", "by-people", "--territory", "EU", "--output", str(drafts)]
    words += ["--refused", str(refused), "--json"]
    ended = CliRunner().invoke(commands, words)
    assert ended.exit_code == 3, ended.output
    assert json.loads(ended.stdout) == {"drafted": 2, "refused": 1}
    lines = [json.loads(line) for line in drafts.read_text().splitlines()]
    assert [line["assessment"] for line in lines] == [nudity, gone]
    for line in lines:
        assert line["draft"].startswith("DRAFT")
        assert Statement.model_validate(line["statement"]).puid == line["assessment"]
        assert len(line["statement"]["territorial_scope"]) == 27
    (no,) = [json.loads(line) for line in refused.read_text().splitlines()]
    assert no["assessment"] == disaster
    assert "dsa.categories.O9" in no["refused"]
    again = claimed(ledger, newest(ledger))
    record(ledger, again, verdict(), worker="w1")
    ended = CliRunner().invoke(commands, [*words[:-3], "--json"])
    assert json.loads(ended.stdout) == {"drafted": 1, "refused": 1}, "the last verdict of it is Safe"


def newest(engine: Engine) -> object:
    from sqlalchemy import text

    with engine.connect() as connection:
        return connection.execute(text("SELECT id FROM assessment WHERE reassesses IS NOT NULL")).scalar_one()


def test_without_refusals_the_command_succeeds_and_the_drafts_are_on_stdout(ledger: Engine) -> None:
    add(ledger, load_policy(FILE, source="f"), by="anna")
    judged(ledger, Rating.UNSAFE, "O4: Nudity Content")
    ended = CliRunner().invoke(commands, ["export", "dsa", "--decided", "fully"])
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout)["statement"]["automated_decision"] == "AUTOMATED_DECISION_FULLY"
    assert "DRAFT" in ended.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--territory", "US"], "--territory takes"),
        (["--content-date", "posted"], "metadata:KEY"),
        (["--restriction", "hidden"], "--restriction takes"),
        (["--json"], "--output"),
    ],
)
def test_a_circumstance_that_means_nothing_is_refused(words: list[str], said: str) -> None:
    ended = CliRunner().invoke(commands, ["export", "dsa", "--decided", "fully", *words])
    assert isinstance(ended.exception, InvalidSubmission), ended.output
    assert said in str(ended.exception)
