"""Drafts of statements of reasons, by the rules of the Transparency Database, and the mapping in a policy's file."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from consumer.dsa.draft import Circumstances, DraftRefused, Mappings, draft
from consumer.dsa.statement import Statement
from moderation.errors import PolicyError
from moderation.policy import PolicyRevision, builtin_policies, describe_diff, dump_policy, load_policy
from moderation.policy.dsa import DEFAULTS
from moderation.policy.dsa_values import CATEGORIES, EEA, EU, KEYWORDS

VALID: dict[str, Any] = {
    "puid": "01a20ba2-5241-739c-8377-d7731dd25d46",
    "decision_visibility": ["DECISION_VISIBILITY_CONTENT_REMOVED"],
    "decision_ground": "DECISION_GROUND_INCOMPATIBLE_CONTENT",
    "incompatible_content_ground": "Community rules, section 4",
    "incompatible_content_explanation": "Nudity is not allowed.",
    "category": "STATEMENT_CATEGORY_OTHER_VIOLATION_TC",
    "category_specification": ["KEYWORD_NUDITY"],
    "content_type": ["CONTENT_TYPE_IMAGE"],
    "content_date": "2026-11-01",
    "application_date": "2026-11-24",
    "territorial_scope": ["FR", "IS"],
    "decision_facts": "An automated classifier rated it.",
    "source_type": "SOURCE_VOLUNTARY",
    "automated_detection": "Yes",
    "automated_decision": "AUTOMATED_DECISION_PARTIALLY",
}
LEGAL = {
    "decision_ground": "DECISION_GROUND_ILLEGAL_CONTENT",
    "incompatible_content_ground": None,
    "incompatible_content_explanation": None,
    "illegal_content_legal_ground": "Section 130",
    "illegal_content_explanation": "It incites.",
}


def test_a_statement_that_keeps_every_rule_is_taken_with_dates_as_the_database_wants_them() -> None:
    dumped = Statement.model_validate(VALID).model_dump(mode="json", exclude_none=True)
    assert dumped == VALID
    assert Statement.model_validate(VALID | LEGAL)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"puid": ""}, "puid"),
        ({"puid": "a b"}, "puid"),
        ({"puid": "a\n"}, "puid"),
        ({"puid": "x" * 501}, "puid"),
        ({"decision_visibility": []}, "decision_visibility"),
        ({"decision_visibility": ["CONTENT_REMOVED"]}, "decision_visibility"),
        ({"decision_visibility": ["DECISION_VISIBILITY_CONTENT_HIDDEN"]}, "decision_visibility"),
        ({"decision_ground": "ILLEGAL"}, "decision_ground"),
        ({"decision_ground_reference_url": "our terms"}, "decision_ground_reference_url"),
        ({"incompatible_content_ground": None}, "both required"),
        ({"incompatible_content_explanation": ""}, "incompatible_content_explanation"),
        ({"incompatible_content_ground": "x" * 501}, "incompatible_content_ground"),
        ({"incompatible_content_explanation": "x" * 2001}, "incompatible_content_explanation"),
        ({"illegal_content_legal_ground": "x"}, "one ground"),
        (LEGAL | {"illegal_content_legal_ground": None}, "both required"),
        (LEGAL | {"incompatible_content_ground": "x"}, "one ground"),
        (LEGAL | {"illegal_content_legal_ground": "x" * 501}, "illegal_content_legal_ground"),
        ({"category": "NUDITY"}, "category"),
        ({"category": "STATEMENT_CATEGORY_NUDITY"}, "category"),
        ({"category_specification": ["KEYWORD_NAKED"]}, "category_specification"),
        ({"content_type": []}, "content_type"),
        ({"content_type": ["CONTENT_TYPE_PICTURE"]}, "content_type"),
        ({"content_date": "1999-12-31"}, "content_date"),
        ({"content_date": "24.11.2026"}, "content_date"),
        ({"application_date": "2019-12-31"}, "application_date"),
        ({"application_date": "2038-01-02"}, "application_date"),
        ({"territorial_scope": ["US"]}, "territorial_scope"),
        ({"decision_facts": ""}, "decision_facts"),
        ({"decision_facts": "x" * 5001}, "decision_facts"),
        ({"source_type": "SOURCE_OWN"}, "source_type"),
        ({"source_identity": "somebody"}, "source_identity"),
        ({"automated_detection": "Maybe"}, "automated_detection"),
        ({"automated_decision": "Yes"}, "automated_decision"),
        ({"uuid": "x"}, "uuid"),
    ],
)
def test_a_statement_that_breaks_a_rule_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Statement.model_validate(VALID | change)


@pytest.mark.parametrize("field", sorted(Statement.model_fields.keys() & VALID.keys()))
def test_what_is_required_is_required(field: str) -> None:
    without = {name: value for name, value in VALID.items() if name != field}
    if field in {"category_specification", "territorial_scope"}:
        assert Statement.model_validate(without)
    else:
        with pytest.raises(ValidationError):
            Statement.model_validate(without)


def test_the_values_are_the_databases() -> None:
    assert (len(CATEGORIES), len(KEYWORDS), len(EEA), len(EU)) == (16, 69, 30, 27)
    assert {c.category for c in DEFAULTS.values()} <= CATEGORIES
    assert {keyword for c in DEFAULTS.values() for keyword in c.keywords} <= KEYWORDS


FILE = """policy: city-news
title: City news desk
categories:
  O10: {name: Gambling, should_not: [Promote betting.]}
"""
MAPPED = (
    FILE
    + """dsa:
  terms: Community rules, section 4
  terms_url: https://city.news/rules
  restriction: CONTENT_REMOVED
  categories:
    O4: {category: PROTECTION_OF_MINORS, keywords: [AGE_SPECIFIC_RESTRICTIONS_MINORS], explanation: No nudity here.}
    O10: {category: CONSUMER_INFORMATION, law: Gambling Act}
"""
)


def load(text: str) -> PolicyRevision:
    return load_policy(text, source="city-news.yaml")


def test_a_mapping_changes_neither_prompt_nor_digest_and_survives_the_file() -> None:
    plain, mapped = load(FILE), load(MAPPED)
    assert mapped.prompt_sha256 == plain.prompt_sha256
    assert mapped.prompt == plain.prompt
    assert load(dump_policy(mapped)) == mapped
    assert PolicyRevision.model_validate_json(mapped.model_dump_json()) == mapped
    assert mapped.at_revision(3).dsa == mapped.dsa
    assert "dsa: changed" in describe_diff(plain, mapped).lines
    assert "the model reads the same text" in describe_diff(plain, mapped).lines


def test_the_mapping_that_the_documentation_shows_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
    (shown,) = (
        block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if block.startswith("dsa:")
    )
    dsa = load(FILE + shown).dsa
    assert dsa is not None
    assert dsa.categories["O10"].law == "Gambling Act, section 5"


def test_a_policy_without_a_mapping_is_stored_as_before() -> None:
    assert all("dsa" not in policy.model_dump() for policy in builtin_policies())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  restriction: removed", "dsa.restriction: no restriction of the Transparency Database"),
        ("  categories: {O4: {category: NUDE}}", "dsa.categories.O4.category: no category"),
        ("  categories: {O4: {category: VIOLENCE, keywords: [NUDTY]}}", "did you mean NUDITY?"),
        ("  categories: {O12: {category: VIOLENCE}}", "O12 is no category of this policy"),
        ("  terms_url: our rules", "dsa.terms_url"),
        ("  term: x", "did you mean terms?"),
    ],
)
def test_a_mistake_in_a_mapping_is_named_by_its_line(line: str, said: str) -> None:
    with pytest.raises(PolicyError, match=r"city-news.yaml:\d+: ") as caught:
        load(FILE + "dsa:\n" + line + "\n")
    assert said in str(caught.value)


def row(**change: Any) -> dict[str, Any]:
    moment = datetime(2026, 11, 24, 23, 59, tzinfo=UTC)
    return {
        "id": "01a20ba2-5241-739c-8377-d7731dd25d46",
        "policy": "city-news@1",
        "policy_revision": 1,
        "category": "O4: Nudity Content",
        "rationale": "A man called Tom stands naked.",
        "model": "LlavaGuard-v1.2-0.5B-OV",
        "submitted_at": moment,
        "recorded_at": moment,
        "metadata": '{"posted": "2026-11-20T08:00:00Z", "n": 1}',
    } | change


PEOPLE = Circumstances(automated_decision="AUTOMATED_DECISION_NOT_AUTOMATED")


def test_the_policys_own_mapping_makes_the_draft() -> None:
    drafted = draft(row(), Mappings([load(MAPPED)]), PEOPLE).model_dump(mode="json", exclude_none=True)
    assert drafted["category"] == "STATEMENT_CATEGORY_PROTECTION_OF_MINORS"
    assert drafted["category_specification"] == ["KEYWORD_AGE_SPECIFIC_RESTRICTIONS_MINORS"]
    assert drafted["incompatible_content_ground"] == "Community rules, section 4"
    assert drafted["incompatible_content_explanation"] == "No nudity here."
    assert drafted["decision_ground_reference_url"] == "https://city.news/rules"
    assert drafted["content_date"] == drafted["application_date"] == "2026-11-24"
    assert "Tom" not in str(drafted), "the model's words may describe a person: only where asked for"
    assert "city-news@1" in drafted["decision_facts"]


def test_a_category_that_breaks_a_law_names_it() -> None:
    drafted = draft(row(category="O10: Gambling"), Mappings([load(MAPPED)]), PEOPLE)
    assert drafted.decision_ground == "DECISION_GROUND_ILLEGAL_CONTENT"
    assert drafted.illegal_content_legal_ground == "Gambling Act"
    assert drafted.incompatible_content_ground is None


def test_a_later_revision_mends_the_mapping_of_an_earlier_verdict() -> None:
    later = load(MAPPED.replace("PROTECTION_OF_MINORS,", "VIOLENCE,")).at_revision(2)
    assert draft(row(), Mappings([load(MAPPED), later]), PEOPLE).category == "STATEMENT_CATEGORY_VIOLENCE"
    unmapped = load(FILE).at_revision(3)
    assert draft(row(), Mappings([later, unmapped]), PEOPLE).category == "STATEMENT_CATEGORY_VIOLENCE"


def test_without_a_mapping_the_trained_categories_have_the_defaults() -> None:
    said = Circumstances(
        automated_decision="AUTOMATED_DECISION_FULLY",
        restriction="CONTENT_DISABLED",
        terms="Section 4",
        content_date_key="posted",
        territorial_scope=("FR",),
        rationale=True,
    )
    drafted = draft(row(), Mappings([load(FILE)]), said)
    assert drafted.category == "STATEMENT_CATEGORY_OTHER_VIOLATION_TC"
    assert drafted.category_specification == ("KEYWORD_NUDITY",)
    assert f"{drafted.content_date}" == "2026-11-20"
    assert "Tom" in drafted.decision_facts


@pytest.mark.parametrize(
    ("change", "said", "reason"),
    [
        ({"category": "O9: Disasters or Emergencies"}, {}, "dsa.categories.O9"),
        ({"category": "NA: None applying"}, {}, "to no category"),
        ({}, {"restriction": None}, "--restriction"),
        ({}, {"terms": None}, "--terms"),
        ({}, {"terms": "x" * 501}, "incompatible_content_ground"),
        ({}, {"content_date_key": "n"}, "is no day"),
        ({"metadata": None}, {"content_date_key": "posted"}, "is no day"),
        ({"metadata": '{"posted": "1999-01-01"}'}, {"content_date_key": "posted"}, "content_date"),
        ({"rationale": "x" * 5000}, {"rationale": True}, "decision_facts"),
    ],
)
def test_what_cannot_be_drafted_says_why(change: dict[str, Any], said: dict[str, Any], reason: str) -> None:
    known = {"restriction": "CONTENT_REMOVED", "terms": "Section 4"} | said
    circumstances = Circumstances(automated_decision="AUTOMATED_DECISION_FULLY", **known)
    with pytest.raises(DraftRefused, match=reason):
        draft(row(**change), Mappings([load(FILE)]), circumstances)
