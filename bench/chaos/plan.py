"""What a run does: how many items, how many of which fault, and from which seed."""

import argparse
import random
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Plan:
    """The numbers of a run. Faults are spread evenly over the items, in a seeded order."""

    items: int = 5000
    poison: int = 20
    kills: int = 200
    terms: int = 0
    freezes: int = 3
    flushes: int = 5
    redis_kills: int = 5
    postgres_stops: int = 10
    workers: int = 4
    threads: int = 8
    lease_s: float = 30.0  # the default
    latency_s: float = 0.5  # of the scripted judge, about LlavaGuard's: a kill finds work in hand
    pace_s: float = 3.0  # between faults at least: a death every 3 s leaves each of four workers 12 s of life
    seed: int = 1
    limit_s: float = 1500.0

    @classmethod
    def from_arguments(cls, parser: argparse.ArgumentParser) -> tuple[Self, argparse.Namespace]:
        """The plan that the command line asks for, and whatever else it said."""
        names = [field.name for field in fields(cls)]
        for field in fields(cls):
            flag = "--" + field.name.replace("_", "-")
            parser.add_argument(
                flag, type=type(field.default), default=field.default, help=f"({field.default})"
            )
        parser.add_argument("--out", type=Path, default=Path("bench/results"), help="(bench/results)")
        given = parser.parse_args()
        return cls(**{name: getattr(given, name) for name in names}), given

    @property
    def faults(self) -> list[str]:
        """Every fault of the run, in the order in which they happen."""
        counts = {
            "kill": self.kills,
            "term": self.terms,
            "freeze": self.freezes,
            "flush": self.flushes,
            "redis_kill": self.redis_kills,
            "postgres_stop": self.postgres_stops,
        }
        order = [fault for fault, count in counts.items() for _ in range(count)]
        random.Random(self.seed).shuffle(order)
        return order
