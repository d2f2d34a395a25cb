"""A run against another one of the same rows: differences, McNemar, Holm over slices, and the rows that flipped."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from consumer.evaluation.counts import COUNTS, Array
from consumer.evaluation.paired import Discordant, holm, mcnemar, paired_differences
from consumer.evaluation.sample import EvaluationSample, Judged

Pair = tuple[Judged, Judged]

_MEASURES = ("balanced_accuracy", "recall", "specificity", "accuracy", "f1", "mcc")
_MOST_FLIPS = 1_000  # listed; all are counted


def compare(
    before: Sequence[Judged], after: Sequence[Judged], groups: Sequence[str], *, seed: int, draws: int
) -> dict[str, Any]:
    """What changed from one run to another, over the rows that both have scored and label alike."""
    pairs, left_out = _paired(before, after)
    tests = {"all rows": pairs} | _by_slice(pairs, groups)
    found = {name: _discordant(each) for name, each in tests.items()}
    slices = {name: test for name, test in found.items() if name != "all rows"}
    adjusted = holm({name: test.p for name, test in slices.items()})
    return {
        "paired_rows": len(pairs),
        "left_out": left_out,
        "differences": {
            name: asdict(difference)
            for name, difference in _differences(pairs, seed=seed, draws=draws).items()
        },
        "mcnemar": asdict(found["all rows"]),
        "slices": {
            name: asdict(test) | {"n": len(tests[name]), "p_holm": adjusted[name]}
            for name, test in slices.items()
        },
        "flips": flips(pairs),
    }


def flips(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Rows whose rating changed: how many each way, and which, the losses first."""
    turned = [(was, now) for was, now in pairs if was.said_unsafe != now.said_unsafe]
    turned.sort(key=lambda pair: (pair[1].right, pair[1].row))
    return {
        "to_unsafe": sum(now.said_unsafe for _, now in turned),
        "to_safe": sum(not now.said_unsafe for _, now in turned),
        "gained": sum(now.right for _, now in turned),
        "lost": sum(not now.right for _, now in turned),
        "rows": [_flip(was, now) for was, now in turned[:_MOST_FLIPS]],
    }


def _flip(was: Judged, now: Judged) -> dict[str, Any]:
    return {
        "row": now.row,
        "uri": now.uri,
        "label": "Unsafe" if now.unsafe else "Safe",
        "is": "Unsafe" if now.said_unsafe else "Safe",
        "category_before": was.said,
        "category_after": now.said,
        "assessment": now.assessment,
        "before": was.assessment,
    }


def _paired(before: Sequence[Judged], after: Sequence[Judged]) -> tuple[list[Pair], dict[str, int]]:
    earlier = {row.row: row for row in before}
    pairs: list[Pair] = []
    left: Counter[str] = Counter()
    for row in after:
        was = earlier.get(row.row)
        if was is None:
            left["not in the other run"] += 1
        elif was.unsafe != row.unsafe:
            left["labelled otherwise"] += 1
        elif was.code is not None or row.code is not None:
            left["not scored in both"] += 1
        else:
            pairs.append((was, row))
    return pairs, dict(sorted(left.items()))


def _discordant(pairs: Sequence[Pair]) -> Discordant:
    lost = sum(was.right and not now.right for was, now in pairs)
    gained = sum(now.right and not was.right for was, now in pairs)
    return mcnemar(lost, gained)


def _by_slice(pairs: Sequence[Pair], groups: Sequence[str]) -> dict[str, list[Pair]]:
    found: defaultdict[str, list[Pair]] = defaultdict(list)
    for was, now in pairs:
        found[f"label {'Unsafe' if now.unsafe else 'Safe'}"].append((was, now))
        if now.category is not None:
            found[f"category {now.category}"].append((was, now))
        for name, value in zip(groups, now.groups, strict=False):
            if value is not None:
                found[f"{name} {value}"].append((was, now))
    return dict(sorted(found.items()))


def _differences(pairs: Sequence[Pair], *, seed: int, draws: int) -> Mapping[str, Any]:
    before, after = _clusters([was for was, _ in pairs], pairs), _clusters([now for _, now in pairs], pairs)
    return paired_differences(before, after, _MEASURES, seed=seed, draws=draws)


def _clusters(rows: Sequence[Judged], pairs: Sequence[Pair]) -> Array:
    """Counts by image, the images in the same order for both."""
    if not rows:
        return np.zeros((0, len(COUNTS)))
    sample = EvaluationSample(rows)
    sample.images = EvaluationSample([now for _, now in pairs]).images
    return sample.clusters()
