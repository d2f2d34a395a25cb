"""What a shadow's flips come to: rates with intervals, heeding that items of one image turn together."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from consumer.evaluation.intervals import DRAWS, Estimate, percentile, share_estimate
from consumer.evaluation.paired import mcnemar
from consumer.evaluation.report import SEED
from moderation.ledger.shadow import Kind, Seen


def summarise(seen: Seen) -> dict[str, Any]:
    """Flips each way and in all, of how many pairs; by how much the share of Unsafe changes; states and cost."""
    to_unsafe, to_safe = (_share(seen.kinds, name) for name in ("to_unsafe", "to_safe"))
    turned = [
        sum(getattr(kind, name) * kind.images for kind in seen.kinds) for name in ("to_safe", "to_unsafe")
    ]
    return {
        "pairs": sum(kind.n * kind.images for kind in seen.kinds),
        "to_unsafe": asdict(to_unsafe),
        "to_safe": asdict(to_safe),
        "unsafe_before": asdict(_share(seen.kinds, "unsafe_before")),
        "change_of_unsafe": asdict(_change(seen.kinds)),
        "mcnemar_p": mcnemar(*turned).p,
        "states": seen.states,
        "cost": seen.cost,
        "flips": seen.flips,
    }


def _columns(kinds: Sequence[Kind], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """One value for each image."""
    return np.repeat([float(getattr(k, name)) for k in kinds], [k.images for k in kinds])


def _share(kinds: Sequence[Kind], name: str) -> Estimate:
    return share_estimate(_columns(kinds, name), _columns(kinds, "n"))


def _change(kinds: Sequence[Kind]) -> Estimate:
    """The share of Unsafe under the candidate less that which is live, by a bootstrap of whole images."""
    if not kinds:
        return Estimate(None, None, None, 0)
    images = np.array([kind.images for kind in kinds], dtype=float)
    drawn = np.random.default_rng(SEED).multinomial(int(images.sum()), images / images.sum(), size=DRAWS)
    apart = np.array([kind.to_unsafe - kind.to_safe for kind in kinds], dtype=float)
    sizes = np.array([kind.n for kind in kinds], dtype=float)
    value = float(images @ apart / (images @ sizes))
    return Estimate(value, *percentile(drawn @ apart / (drawn @ sizes)), int(images @ sizes))
