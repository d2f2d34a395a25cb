"""From labelled rows to judged ones: through the queue, over verdicts that are there, or a batch that carries its labels."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Engine

from consumer.evaluation.labels import LabelColumns, LabelledImage, category_id, digest_of, labelled, settled
from consumer.evaluation.sample import Judged
from consumer.evaluation.sources import LabelledData
from moderation.errors import BadSource
from moderation.ledger import evaluations
from moderation.ledger.evaluations import ItemOutcome, ToJudge
from moderation.ledger.policies import PinnedPolicy
from moderation.ledger.submit import new_id
from moderation.redaction import without_secrets
from moderation.verdict import Rating

_PAGE = 1000  # rows of one statement
_MOST_KEY = 300  # characters of a row's name in a key; longer ones by their digest


@dataclass(frozen=True, slots=True)
class JudgingBasis:
    """What verdicts rest on besides image and rules."""

    judge: str | None
    model: str | None
    weights_sha256: str | None
    runtime: str | None
    runtime_version: str | None
    template_mode: str | None
    sampling: str | None


@dataclass(slots=True)
class Judgements:
    """Rows with what became of them, and on how many verdicts each basis stands."""

    rows: list[Judged] = field(default_factory=list)
    bases: Counter[JudgingBasis] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Rules:
    """Which revision judges a row. own: by the digest of the row's own rules, where each has its own; else one for all."""

    one: PinnedPolicy | None
    prompt_sha256: str | None
    own: Mapping[str, PinnedPolicy] = field(default_factory=dict)

    def revision(self, row: LabelledImage) -> PinnedPolicy | None:
        """None where the row was labelled under other rules."""
        if self.one is None:
            return self.own.get(row.policy or "")
        return self.one if row.policy in {None, self.prompt_sha256} else None


def submit(
    engine: Engine,
    data: LabelledData,
    rules: Rules,
    *,
    batch: str,
    reuse: bool,
    on_rows: Callable[[int], None] = lambda _: None,
) -> None:
    """Queue each row that these rules judge, once. What is queued already stays: run it again and it goes on."""
    meant = ((row, rules.revision(row)) for row in data.rows if row.problem is None and row.uri)
    page: list[ToJudge] = []
    for row, revision in meant:
        if revision is None:
            continue
        key = _key(batch, row.row)
        page.append(ToJudge(new_id(), row.uri, revision.policy, revision.id, key))
        if len(page) == _PAGE:
            on_rows(len(page))
            evaluations.submit_rows(engine, page, batch=batch, reuse=reuse)
            page = []
    on_rows(len(page))
    evaluations.submit_rows(engine, page, batch=batch, reuse=reuse)


def of_batch(
    engine: Engine, data: LabelledData, rules: Rules, *, batch: str, model: str | None
) -> Judgements:
    """What became of rows that were queued under this batch."""
    by_key = {outcome.key: outcome for outcome in evaluations.outcomes_of_batch(engine, batch)}
    return _joined(data.rows, rules, model, lambda row: by_key.get(_key(batch, row.row)))


def of_uris(engine: Engine, data: LabelledData, rules: Rules, *, model: str | None) -> Judgements:
    """The last verdict about each row's image under the revision, whoever submitted it."""
    if rules.one is None:
        raise BadSource("verdicts that are there are found under one policy: name it with --policy")
    uris = sorted({without_secrets(row.uri) for row in data.rows})
    found = {o.uri: o for o in evaluations.outcomes_of_uris(engine, uris, rules.one.id, model=model)}
    return _joined(data.rows, rules, model, lambda row: found.get(without_secrets(row.uri)))


def labelled_batch(
    engine: Engine, batch: str, columns: LabelColumns, rules: Rules, *, model: str | None
) -> tuple[LabelledData, Judgements]:
    """A batch whose metadata hold its labels, as `vetline enqueue --metadata-column` keeps them.

    A row is called by its id among them, so that two batches of the same rows can be compared; else by its assessment.
    """
    outcomes: list[ItemOutcome] = []

    def rows() -> Iterator[LabelledImage]:
        named: dict[str, str | None] | None = None
        for outcome in evaluations.outcomes_of_batch(engine, batch):
            labels = outcome.metadata or {}
            if named is None:
                named = columns.named(list(labels), f"batch {batch}", with_uri=False)
            row = labelled(labels, named, columns.groups, uri=outcome.uri)
            outcomes.append(replace(outcome, metadata=None))
            yield replace(row, row=row.row or str(outcome.id), text=None)

    found = settled(rows())
    if not found:
        raise BadSource(f"no batch {batch!r}")
    data = LabelledData(f"batch:{batch}", found, digest_of(found, with_uri=False))
    by_row = {row.row: outcome for row, outcome in zip(found, outcomes, strict=True)}
    return data, _joined(found, rules, model, lambda row: by_row.get(row.row))


def _key(batch: str, row: str) -> str:
    name = row if len(row) <= _MOST_KEY else hashlib.sha256(row.encode()).hexdigest()
    return f"{batch}/{name}"


def _joined(
    rows: Iterable[LabelledImage],
    rules: Rules,
    model: str | None,
    outcome_of: Callable[[LabelledImage], ItemOutcome | None],
) -> Judgements:
    found = Judgements()
    known: dict[JudgingBasis, JudgingBasis] = {}
    for row in rows:
        outcome = outcome_of(row)
        code = _code(row, rules, outcome, model)
        found.rows.append(_judged(row, outcome, code))
        if code is None and outcome is not None:
            basis = JudgingBasis(
                outcome.judge, outcome.model, outcome.weights_sha256, outcome.runtime, outcome.runtime_version,
                outcome.template_mode, outcome.sampling,
            )  # fmt: skip
            found.bases[known.setdefault(basis, basis)] += 1
    return found


def _code(row: LabelledImage, rules: Rules, outcome: ItemOutcome | None, model: str | None) -> str | None:
    """Why it is not scored; None where it is."""
    if row.problem is not None or not row.uri:
        return "bad_row"
    revision = rules.revision(row)
    if revision is None:
        return "other_policy"
    if outcome is None:
        return "not_judged"
    if outcome.state == "failed":
        return outcome.error_code or "unknown_error"
    if outcome.state == "cancelled":
        return "cancelled"
    if outcome.rating is None:
        return "open"
    if outcome.judged_under != revision.id:
        return "other_policy"
    if model is not None and outcome.model != model:
        return "other_model"
    return None


def _judged(row: LabelledImage, outcome: ItemOutcome | None, code: str | None) -> Judged:
    shown = without_secrets(row.uri)
    judged = Judged(
        row=row.row,
        image=shown,
        uri=shown,
        unsafe=row.unsafe,
        category=row.category,
        policy=row.policy,
        exception=row.exception,
        groups=row.groups,
        code=code,
        assessment=outcome.id if outcome else None,
    )
    if code is not None or outcome is None:
        return judged
    return replace(
        judged,
        image=outcome.pixels_sha256 or shown,
        said_unsafe=outcome.rating == Rating.UNSAFE,
        said=category_id(outcome.category),
        p_unsafe=outcome.p_unsafe,
        p_calibrated=outcome.p_unsafe_calibrated,
        needs_review=bool(outcome.needs_review),
    )


def only_basis(bases: Mapping[JudgingBasis, int]) -> JudgingBasis | None:
    """The one that all verdicts share in model, weights and prompt mode; None where there are several or none."""
    kinds = {(b.judge, b.model, b.weights_sha256, b.template_mode) for b in bases}
    return next(iter(bases)) if len(kinds) == 1 else None


def most_first(bases: Mapping[JudgingBasis, int]) -> Sequence[tuple[JudgingBasis, int]]:
    return sorted(bases.items(), key=lambda item: (-item[1], str(item[0])))
