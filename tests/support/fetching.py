"""Fetching from a host that lies, for tests: short budgets, and names that resolve as told."""

import time

import pytest

from intake.fetch import Fetcher
from intake.resolver import Resolve
from moderation.errors import (
    VetlineError,
)

BUDGET_S = 3.0
LIMIT_BYTES = 200_000

QUICK = {
    "total_timeout_s": BUDGET_S,
    "first_byte_timeout_s": 1.5,
    "connect_timeout_s": 2,
    "min_rate_after_s": 1,
    "max_bytes": LIMIT_BYTES,
}
LOOPBACK = ("127.0.0.1",)


def failing(fetcher: Fetcher, uri: str) -> VetlineError:
    """The error that a fetch ends with, within the budget and a second."""
    started = time.monotonic()
    with pytest.raises(VetlineError) as caught:
        fetcher.fetch(uri)
    assert time.monotonic() - started < BUDGET_S + 1
    return caught.value


def resolving(*answers: list[str]) -> tuple[Resolve, list[str]]:
    """A name server that gives each of these answers in turn, and the names that it was asked for."""
    asked: list[str] = []

    def resolve(name: str, port: int, timeout_s: float) -> list[str]:
        asked.append(name)
        return answers[min(len(asked), len(answers)) - 1]

    return resolve, asked
