"""How large a run is. The defaults are the published ones and take about ten quiet minutes."""

import argparse
from dataclasses import dataclass, fields
from typing import Self

PARTS = ("submissions", "assessments", "idle", "runtimes", "growth")


@dataclass(frozen=True, slots=True)
class Plan:
    """submissions: rows from one process; the peer sends sent_by_peer tasks one by one.

    assessments: items through `workers` processes of `threads` threads; pictures are fetched and decoded in as many
    of them again. idle: high-priority items, one after the other, through an idle worker. runtimes: simulated ones,
    of `images_per_s` each, watched for watch_s once all have been at work for settle_s. rows: the sizes of the ledger
    at which statements are timed, `times` times each.
    """

    submissions: int = 1_000_000
    sent_by_peer: int = 20_000
    assessments: int = 40_000
    pictures: int = 6_000
    tasks_of_peers: int = 15_000
    workers: int = 2
    threads: int = 8
    idle: int = 300
    runtimes: int = 16
    images_per_s: int = 60
    settle_s: float = 8.0
    watch_s: float = 30.0
    rows: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    times: int = 50

    @classmethod
    def arguments(cls, parser: argparse.ArgumentParser) -> None:
        for field in fields(cls):
            flag, default = "--" + field.name.replace("_", "-"), field.default
            if isinstance(default, tuple):
                parser.add_argument(flag, type=int, nargs="+", default=default)
            else:
                parser.add_argument(flag, type=type(default), default=default, help=f"({default})")

    @classmethod
    def of(cls, given: argparse.Namespace) -> Self:
        chosen = {field.name: getattr(given, field.name) for field in fields(cls)}
        return cls(**chosen | {"rows": tuple(given.rows)})
