"""Finds a verdict that answers for the same pixels: same policy revision, same model, asked in the same way."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Engine, text

from moderation.ledger.engine import autocommit
from moderation.verdict import Basis, Judgement

# Only a verdict on the whole picture speaks for its pixels; one that was itself reused only points to it.
_KNOWN = text("""
    SELECT assessment_id, rating, category, rationale, rationale_truncated, needs_review, p_unsafe,
           p_unsafe_calibrated, rung, finish_reason, raw_output, judge, model, weights_sha256, runtime,
           runtime_version, template_mode, prompt_sha256, sampling
    FROM verdict
    WHERE pixels_sha256 = :pixels AND policy_revision_id = :revision AND judge = :judge AND model = :model
        AND template_mode IS NOT DISTINCT FROM CAST(:template_mode AS text) AND view = 'whole'
        AND (NOT :rationale OR rationale <> '') AND reused_from IS NULL
    ORDER BY seq LIMIT 1
""")


@dataclass(frozen=True, slots=True)
class KnownVerdict:
    """A judgement that stands, and the assessment whose verdict it is."""

    assessment_id: UUID
    judgement: Judgement


def find_known(
    engine: Engine, pixels_sha256: str, policy_revision_id: int, basis: Basis
) -> KnownVerdict | None:
    """The first verdict about these pixels that rests on the same basis."""
    values = {
        "pixels": pixels_sha256,
        "revision": policy_revision_id,
        "judge": basis.judge,
        "model": basis.model,
        "template_mode": basis.template_mode,
        "rationale": basis.rationale,
    }
    with autocommit(engine) as connection:
        row = connection.execute(_KNOWN, values).mappings().first()
    if row is None:
        return None
    fields = dict(row)
    return KnownVerdict(fields.pop("assessment_id"), Judgement(**fields))
