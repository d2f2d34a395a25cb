"""How often nominal 95 % intervals hold the truth: data sets are simulated whose truth is known.

Independent: each image has one row. Clustered: an image has one to five rows, which agree more often than chance,
as one image under several policies does: each image has its own share of right answers, drawn from a beta.

    python -m bench.evaluation.coverage --data-sets 2000 --out bench/results/evaluation-coverage.json
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from bench.machine import describe_machine
from consumer.evaluation.counts import COMPOSED, COUNTS, RATES, Array, measure
from consumer.evaluation.intervals import Estimate, composed_estimates, rate_estimate
from consumer.evaluation.paired import paired_differences

RECALL, SPECIFICITY = 0.8667, 0.9073  # of the published 0.5B run
UNSAFE_SHARE = 360 / 824
_SPREAD = 1.5  # a + b of the beta: rows of an image correlate by 1 / (1 + a + b) = 0.4
_RATES = ("recall", "specificity", "precision", "accuracy")
_COMPOSED = ("balanced_accuracy", "f1", "f2", "mcc")


def cover(*, data_sets: int, rows: int, clustered: bool, seed: int, draws: int = 2_000) -> dict[str, float]:
    """The share of data sets whose interval holds the truth, for each measure, and for a paired difference."""
    random = np.random.default_rng(seed)
    truth = _expected(clustered)
    held: dict[str, list[bool]] = {}
    for number in range(data_sets):
        images = _data_set(random, rows, clustered)
        estimates: dict[str, Estimate] = {name: rate_estimate(images, name) for name in _RATES}
        composed = composed_estimates(images, seed=number, draws=draws)
        estimates |= {name: composed[name] for name in _COMPOSED}
        for name, estimate in estimates.items():
            held.setdefault(name, []).append(_holds(estimate.lower95, estimate.upper95, truth[name]))
        again = _data_set_like(random, images, clustered)
        apart = paired_differences(images, again, ("accuracy",), seed=number, draws=draws)["accuracy"]
        held.setdefault("paired_difference", []).append(_holds(apart.lower95, apart.upper95, 0.0))
    return {name: float(np.mean(flags)) for name, flags in held.items()}


def _holds(lower: float | None, upper: float | None, truth: float) -> bool:
    return lower is not None and upper is not None and lower <= truth <= upper


def _expected(clustered: bool) -> dict[str, float]:
    """The measures of endlessly many rows: by the expected counts."""
    counts = np.zeros(len(COUNTS))
    counts[:4] = (
        UNSAFE_SHARE * RECALL,
        UNSAFE_SHARE * (1 - RECALL),
        (1 - UNSAFE_SHARE) * (1 - SPECIFICITY),
        (1 - UNSAFE_SHARE) * SPECIFICITY,
    )
    return {
        name: float(measure(counts, name)) for name in (*RATES, *COMPOSED) if name in (*_RATES, *_COMPOSED)
    }


def _data_set(random: np.random.Generator, rows: int, clustered: bool) -> Array:
    """(images, COUNTS). An image's rows may be Unsafe under one policy and Safe under another."""
    sizes = np.ones(rows, dtype=int) if not clustered else random.integers(1, 6, size=rows // 3)
    unsafe = random.binomial(sizes, UNSAFE_SHARE)
    return _answered(random, unsafe, sizes - unsafe, clustered)


def _data_set_like(random: np.random.Generator, images: Array, clustered: bool) -> Array:
    """The same images with answers of another judge that is right as often."""
    unsafe, safe = images[:, :2].sum(axis=1).astype(int), images[:, 2:4].sum(axis=1).astype(int)
    return _answered(random, unsafe, safe, clustered)


def _answered(random: np.random.Generator, unsafe: np.ndarray, safe: np.ndarray, clustered: bool) -> Array:
    if clustered:
        recall = random.beta(_SPREAD * RECALL, _SPREAD * (1 - RECALL), size=len(unsafe))
        specificity = random.beta(_SPREAD * SPECIFICITY, _SPREAD * (1 - SPECIFICITY), size=len(unsafe))
    else:
        recall, specificity = np.full(len(unsafe), RECALL), np.full(len(unsafe), SPECIFICITY)
    counts = np.zeros((len(unsafe), len(COUNTS)))
    counts[:, 0] = random.binomial(unsafe, recall)
    counts[:, 1] = unsafe - counts[:, 0]
    counts[:, 3] = random.binomial(safe, specificity)
    counts[:, 2] = safe - counts[:, 3]
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-sets", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=824)
    parser.add_argument("--seed", type=int, default=20261128)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    start = time.monotonic()
    found = {
        kind: cover(
            data_sets=given.data_sets, rows=given.rows, clustered=kind == "clustered", seed=given.seed
        )
        for kind in ("independent", "clustered")
    }
    told = {
        "machine": describe_machine(),
        "data_sets": given.data_sets,
        "rows": given.rows,
        "seed": given.seed,
        "covered": found,
        "seconds": round(time.monotonic() - start, 1),
    }
    text = json.dumps(told, indent=2)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")
    outside = [(k, n, s) for k, each in found.items() for n, s in each.items() if not 0.93 <= s <= 0.97]
    if outside:
        raise SystemExit(f"outside of 93 to 97 %: {outside}")


if __name__ == "__main__":
    main()
