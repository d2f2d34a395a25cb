"""Drafts a statement of reasons for an Unsafe verdict, from what the policy says about the category."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from pydantic import ValidationError

from consumer.dsa.statement import Automated, Source, Statement
from moderation.policy import PolicyRevision
from moderation.policy.dsa import DEFAULTS, DsaCategory, DsaMapping

NOTICE = (
    "DRAFT made by Vetline from a verdict of a model. It is no decision and no legal advice: a person checks the facts, "
    "the ground and that it holds no personal data (DSA, Article 24(5)) before anything is submitted."
)


class DraftRefused(Exception):
    """No statement can be drafted for this verdict; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What no verdict knows, and the platform says. None of a policy's own fields is overridden by None.

    content_date_key: the key of the metadata that holds the day on which the image was posted; without one, the day of
    its submission stands for it.
    """

    automated_decision: Automated
    source_type: Source = "SOURCE_VOLUNTARY"
    territorial_scope: tuple[str, ...] = ()
    restriction: str | None = None
    terms: str | None = None
    content_date_key: str | None = None
    rationale: bool = False


class Mappings:
    """What the policies of a ledger say, newest revision first: a mapping is mended by a new revision."""

    def __init__(self, revisions: Iterable[PolicyRevision]) -> None:
        self._of: dict[str, list[PolicyRevision]] = {}
        for revision in sorted(revisions, key=lambda r: r.revision, reverse=True):
            self._of.setdefault(revision.policy, []).append(revision)

    def title(self, policy: str, revision: int) -> str:
        return next((r.title for r in self._of.get(policy, ()) if r.revision == revision), policy)

    def find(self, policy: str, category: str) -> tuple[DsaMapping, DsaCategory]:
        """For a category's full name: what the newest revision says that says anything of it, else the default.

        Raises Refused where neither does.
        """
        mapped = [r for r in self._of.get(policy, ()) if r.dsa]
        id_ = category.partition(":")[0]
        for revision in mapped:
            if revision.dsa and category in revision.category_names and id_ in revision.dsa.categories:
                return revision.dsa, revision.dsa.categories[id_]
        if id_ not in DEFAULTS:
            raise DraftRefused(
                f"the policy {policy} maps {category!r} to no category of the database: dsa.categories.{id_}"
            )
        return (mapped[0].dsa if mapped and mapped[0].dsa else DsaMapping()), DEFAULTS[id_]


def draft(row: Mapping[str, Any], mappings: Mappings, circumstances: Circumstances) -> Statement:
    """The draft for a verdict, a row of `moderation.ledger.export`. Raises Refused with every reason."""
    policy = str(row["policy"]).partition("@")[0]
    title = mappings.title(policy, row["policy_revision"])
    mapping, category = mappings.find(policy, row["category"])
    restriction = circumstances.restriction or mapping.restriction
    if restriction is None:
        raise DraftRefused(
            "what was done to the image is not said: dsa.restriction in the policy, or --restriction"
        )
    try:
        return Statement.model_validate(
            {
                "puid": row["id"],
                "decision_visibility": [f"DECISION_VISIBILITY_{restriction}"],
                "decision_ground_reference_url": str(mapping.terms_url) if mapping.terms_url else None,
                **_ground(category, circumstances.terms or mapping.terms, _explained(row, category, title)),
                "category": f"STATEMENT_CATEGORY_{category.category}",
                "category_specification": [f"KEYWORD_{keyword}" for keyword in category.keywords],
                "content_type": ["CONTENT_TYPE_IMAGE"],
                "content_date": _content_date(row, circumstances.content_date_key),
                "application_date": row["recorded_at"].date(),
                "territorial_scope": circumstances.territorial_scope,
                "decision_facts": _facts(row, title, circumstances),
                "source_type": circumstances.source_type,
                "automated_detection": "Yes",
                "automated_decision": circumstances.automated_decision,
            }
        )
    except ValidationError as exc:
        raise DraftRefused("; ".join(_problem(error["loc"], error["msg"]) for error in exc.errors())) from exc


def _ground(category: DsaCategory, terms: str | None, explanation: str) -> dict[str, str | None]:
    if category.law:
        return {
            "decision_ground": "DECISION_GROUND_ILLEGAL_CONTENT",
            "illegal_content_legal_ground": category.law,
            "illegal_content_explanation": explanation,
        }
    if terms is None:
        raise DraftRefused("the clause of the terms is not said: dsa.terms in the policy, or --terms")
    return {
        "decision_ground": "DECISION_GROUND_INCOMPATIBLE_CONTENT",
        "incompatible_content_ground": terms,
        "incompatible_content_explanation": explanation,
    }


def _explained(row: Mapping[str, Any], category: DsaCategory, title: str) -> str:
    return (
        category.explanation or f'The image falls under "{row["category"]}", which "{title}" does not allow.'
    )


def _facts(row: Mapping[str, Any], title: str, circumstances: Circumstances) -> str:
    """Plain facts. The model's rationale describes the image, and so perhaps a person: only where it was asked for."""
    facts = (
        f'The image was examined by an automated classifier ({row["model"]}) under the policy "{title}" '
        f'({row["policy"]}) and rated as falling under "{row["category"]}".'
    )
    return f"{facts} The classifier's words: {row['rationale']}" if circumstances.rationale else facts


def _content_date(row: Mapping[str, Any], key: str | None) -> date:
    if key is None:
        submitted: datetime = row["submitted_at"]
        return submitted.date()
    value: Any = (json.loads(row["metadata"]) if row["metadata"] else {}).get(key)
    try:
        return datetime.fromisoformat(value).date()
    except (TypeError, ValueError):
        raise DraftRefused(f"content_date: the metadata's {key!r} is no day: {value!r}") from None


def _problem(loc: tuple[int | str, ...], message: str) -> str:
    return ": ".join(
        part for part in (".".join(map(str, loc)), message.removeprefix("Value error, ")) if part
    )
