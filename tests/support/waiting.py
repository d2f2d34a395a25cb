"""Waiting for what will happen, with a deadline; never for time to pass."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(look: Callable[[], T], *, timeout_s: float = 30.0, every_s: float = 0.05, what: str = "") -> T:
    """The first truthy answer of `look`. Fails the test, saying what was last seen, when none comes in time."""
    end = time.monotonic() + timeout_s
    while not (seen := look()):
        if time.monotonic() > end:
            raise AssertionError(f"{what or look} did not happen within {timeout_s} s; last seen: {seen!r}")
        time.sleep(every_s)
    return seen
