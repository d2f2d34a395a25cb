"""A run's report: all that was measured and all that is needed to repeat it. The same input gives the same bytes.

It holds no time and no name of a person: those stand beside it in the ledger. Its id is a digest of the rest.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from consumer.evaluation.counts import COMPOSED, RATES
from consumer.evaluation.judging import Judgements, JudgingBasis, most_first, only_basis
from consumer.evaluation.measure import Measures, confusion, measures
from consumer.evaluation.sample import EXCLUDED, EvaluationSample, Judged
from moderation.ledger.evaluation_runs import EvaluationItem

SEED = 20_261_128
FEW_OF_A_CLASS = 50
FEW_OF_A_SLICE = 30
MANY_UNASSESSED = 0.05

# In the order in which they are shown; the rest is in the JSON.
SHOWN = (
    "recall", "specificity", "precision", "accuracy", "balanced_accuracy", "f1", "f2", "mcc", "category_accuracy", "per",
    "pes", "flips.both", "auroc", "auprc", "recall_at_fpr_1", "recall_at_fpr_5", "ece", "brier", "log_loss",
    "calibrated.ece", "calibrated.brier", "calibrated.log_loss", "band.abstained", "band.error_outside", "unassessed",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured. policy: id@revision, or `own`. prompt_sha256: of its rendered text, as revisions have it."""

    source: str
    data_sha256: str
    policy: str
    policy_revision_id: int | None
    prompt_sha256: str | None
    groups: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A finished measurement. document: report.json without its id."""

    id: UUID
    subject: Subject
    sample: EvaluationSample
    document: Mapping[str, Any]
    basis: JudgingBasis | None

    @property
    def report(self) -> dict[str, Any]:
        return {"run": str(self.id), **self.document}

    @property
    def as_bytes(self) -> bytes:
        """report.json."""
        return to_json(self.report, indent=2) + b"\n"

    def head(self, by: str) -> dict[str, Any]:
        """The run's row in the ledger."""
        basis = self.basis
        return {
            "id": self.id,
            "created_by": by,
            "source": self.subject.source,
            "data_sha256": self.subject.data_sha256,
            "policy": self.subject.policy,
            "policy_revision_id": self.subject.policy_revision_id,
            "prompt_sha256": self.subject.prompt_sha256,
            "model": basis.model if basis else None,
            "weights_sha256": basis.weights_sha256 if basis else None,
            "template_mode": basis.template_mode if basis else None,
            "uniform": basis is not None,
            "code_sha256": self.document["code"]["sha256"],
            "seed": self.document["seed"],
            "confusion": self.document["confusion"],
            "metrics": self.document["metrics"],
            "report": self.report,
        }

    def items(self) -> Iterator[EvaluationItem]:
        """Its rows in the ledger."""
        return (item_of(row) for row in self.sample.rows)


def evaluate(
    subject: Subject,
    judged: Judgements,
    *,
    seed: int = SEED,
    draws: int,
    cost: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Measure what became of the rows."""
    sample = EvaluationSample(judged.rows)
    basis = only_basis(judged.bases)
    found = measures(sample, subject.groups, seed=seed, draws=draws)
    counts = confusion(sample)
    document: dict[str, Any] = {
        "warnings": list(_warnings(sample, counts, found, judged, basis)),
        "data": {"source": subject.source, "sha256": subject.data_sha256, "rows": len(sample.rows)},
        "policy": {"ref": subject.policy, "prompt_sha256": subject.prompt_sha256},
        "verdicts_of": [asdict(one) | {"verdicts": n} for one, n in most_first(judged.bases)],
        "code": {"version": version("vetline"), "sha256": code_digest()},
        "seed": seed,
        "draws": draws,
        "groups": list(subject.groups),
        "options": dict(subject.options),
        "scored": len(sample.scored),
        "not_scored": sample.not_scored,
        "confusion": counts,
        "metrics": found,
        "cost": dict(cost) if cost else None,
    }
    return Evaluation(_id_of(document, judged.rows), subject, sample, document, basis)


def lookup(found: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """A measure by its path, such as `flips.both`; None where the run has none."""
    at: Any = found
    for step in path.split("."):
        at = at.get(step) if isinstance(at, Mapping) else None
    return at if isinstance(at, Mapping) else None


def item_of(row: Judged) -> EvaluationItem:
    scored = row.code is None
    return EvaluationItem(
        row=row.row,
        image=row.image,
        assessment_id=row.assessment,
        unsafe=row.unsafe,
        category=row.category,
        policy=row.policy,
        exception=row.exception,
        groups=list(row.groups) or None,
        code=row.code,
        said_unsafe=row.said_unsafe if scored else None,
        said=row.said,
        p_unsafe=row.p_unsafe,
        p_calibrated=row.p_calibrated,
        needs_review=row.needs_review if scored else None,
    )


def judged_of(item: EvaluationItem) -> Judged:
    """A row of an earlier run, as it was measured."""
    return Judged(
        row=item.row,
        image=item.image,
        uri=item.uri or "",
        unsafe=item.unsafe,
        category=item.category,
        policy=item.policy,
        exception=item.exception,
        groups=tuple(item.groups or ()),
        code=item.code,
        said_unsafe=bool(item.said_unsafe),
        said=item.said,
        p_unsafe=item.p_unsafe,
        p_calibrated=item.p_calibrated,
        needs_review=bool(item.needs_review),
        assessment=item.assessment_id,
    )


@cache
def code_digest() -> str:
    """SHA-256 over the files that measure: with it a run says which statistics gave its figures."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _id_of(document: Mapping[str, Any], rows: Sequence[Judged]) -> UUID:
    """The same for the same figures about the same verdicts."""
    digest = hashlib.sha256(to_json(document))
    for row in rows:
        digest.update(f"{row.row}\0{row.assessment}\0".encode())
    return UUID(bytes=digest.digest()[:16], version=5)


def _warnings(
    sample: EvaluationSample,
    counts: Mapping[str, int],
    found: Measures,
    judged: Judgements,
    basis: JudgingBasis | None,
) -> Iterator[str]:
    for name, n in (("Unsafe", counts["tp"] + counts["fn"]), ("Safe", counts["fp"] + counts["tn"])):
        if n < FEW_OF_A_CLASS:
            yield f"only {n} scored rows are labelled {name}: intervals are wide"
    share = found["unassessed"]["value"]
    if share is not None and share > MANY_UNASSESSED:
        codes = ", ".join(f"{code} {n}" for code, n in sample.not_scored.items() if code not in EXCLUDED)
        yield f"{share:.1%} of the rows have no verdict ({codes}): what is scored may not be like the rest"
    if left_out := {code: n for code, n in sample.not_scored.items() if code in EXCLUDED}:
        yield "left out: " + ", ".join(f"{code} {n}" for code, n in left_out.items())
    if basis is None and judged.bases:
        yield f"the verdicts are of {len(judged.bases)} models, weights or prompt modes: such a run passes no gate"
    elif basis and basis.weights_sha256 is None:
        yield "the verdicts name no weights: another model of the same name would look the same"
    small = [name for name, n in _slice_sizes(found) if n < FEW_OF_A_SLICE]
    if small:
        yield f"fewer than {FEW_OF_A_SLICE} rows: {', '.join(small)}"


def _slice_sizes(found: Measures) -> Iterator[tuple[str, int]]:
    for name, each in found.get("category", {}).items():
        yield f"category {name}", each["n"]
    for group, values in found.get("group", {}).items():
        for name, each in values.items():
            yield f"{group} {name}", each["n"]


assert {*RATES, *COMPOSED} <= {*SHOWN}, "every measure is shown"
