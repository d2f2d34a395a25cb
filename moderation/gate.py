"""A gate: what a run must show before a policy revision or a model goes live. Read from a file, judged by the ledger.

policy: newsroom
data: 9f2c...                       # sha256 of the labelled rows, as `vetline evaluate` prints it
rules:
  - recall.lower95 >= 0.80
  - category.O2.recall.lower95 >= 0.70 (n >= 60)
  - unassessed <= 2%
  - no regression
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from moderation.errors import BadSource, PolicyError

_BOUNDS = ("value", "lower95", "upper95")
_MEASURES = frozenset(
    {
        "recall", "specificity", "precision", "accuracy", "category_accuracy", "per", "balanced_accuracy", "f1", "f2",
        "mcc", "pes", "flips", "unassessed", "auroc", "auprc", "recall_at_fpr_1", "recall_at_fpr_5", "ece", "brier",
        "log_loss", "band", "calibrated", "category", "group",
    }
)  # fmt: skip
_REGRESSION = ("accuracy", "recall", "specificity")
_BOUND_RULE = re.compile(
    r"(?P<path>[^<>=()]+?)\s*(?P<op>>=|<=|>|<)\s*(?P<value>\d+(?:\.\d+)?|\.\d+)(?P<percent>\s*%)?"
    r"(?:\s*\(\s*n\s*>=\s*(?P<least_n>\d+)\s*\))?"
)
_NO_REGRESSION = re.compile(r"no regression(?: of (?P<of>[a-z]+(?:, ?[a-z]+)*))?")
_STEP = re.compile(r'"([^"]+)"|([^."]+)')


class BoundRule(BaseModel):
    """A measure against a number. path: its place among a run's measures; bound: which of its values."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["bound"] = "bound"
    text: str
    path: tuple[str, ...]
    bound: Literal["value", "lower95", "upper95"]
    op: Literal[">=", "<=", ">", "<"]
    value: float
    least_n: int | None = None


class RegressionRule(BaseModel):
    """Not worse than what is live, on the same rows: McNemar's exact test at 5 %, by Holm over `of`."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["regression"] = "regression"
    text: str
    of: tuple[str, ...]


Rule = BoundRule | RegressionRule


def parse_rule(text: str) -> Rule:
    """Raises ValueError, saying what a rule looks like."""
    said = " ".join(text.split())
    if match := _NO_REGRESSION.fullmatch(said):
        of = tuple(re.split(", ?", match["of"])) if match["of"] else _REGRESSION
        if unknown := sorted({*of} - {*_REGRESSION}):
            raise ValueError(f"{said!r}: no regression is of {', '.join(_REGRESSION)}, not {unknown[0]}")
        return RegressionRule(text=said, of=of)
    match = _BOUND_RULE.fullmatch(said)
    if match is None:
        raise ValueError(f"{said!r}: a rule is like `recall.lower95 >= 0.80 (n >= 60)` or `no regression`")
    path = [quoted or plain for quoted, plain in _STEP.findall(match["path"])]
    bound = path.pop() if path[-1] in _BOUNDS else "value"
    if not path or path[0] not in _MEASURES:
        raise ValueError(
            f"{said!r}: {path[0] if path else said} is no measure; there are {', '.join(sorted(_MEASURES))}"
        )
    return BoundRule(
        text=said,
        path=tuple(path),
        bound=bound,
        op=match["op"],
        value=float(match["value"]) / (100 if match["percent"] else 1),
        least_n=int(match["least_n"]) if match["least_n"] else None,
    )


class Gate(BaseModel):
    """The rules for one policy. data: the digest of the labelled rows; weights, prompt_mode: where they must be these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    data: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    weights: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")] = None
    prompt_mode: str | None = None
    rules: tuple[Rule, ...] = Field(min_length=1)

    @field_validator("rules", mode="before")
    @classmethod
    def _parse(cls, rules: Any) -> Any:
        if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
            raise ValueError("rules are a list of texts")
        return tuple(parse_rule(rule) for rule in rules)


def read_gate(path: Path) -> Gate:
    """Raises BadSource where it cannot be read, PolicyError naming the field."""
    try:
        # BaseLoader: every scalar is a text, for a digest of digits alone is no number.
        return Gate.model_validate(yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader))  # noqa: S506 - makes texts, lists and maps alone
    except (OSError, UnicodeDecodeError) as exc:
        raise BadSource(f"{path}: cannot be read") from exc
    except yaml.YAMLError as exc:
        raise PolicyError(f"{path}: is no YAML") from exc
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "gate"
        raise PolicyError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
