"""Celery's consumer, patient with a Redis that answers and refuses."""

import time
from collections.abc import Callable
from typing import Any

import structlog
from celery.worker import state
from celery.worker.consumer import Consumer
from redis.exceptions import NoPermissionError

log = structlog.get_logger()

_ASK_AGAIN_S = 3.0  # seldom enough to read the log by
_PAUSE_S = 0.25


def patient(refused: Callable[[str], None]) -> type[Consumer]:
    """A consumer for the app's `worker_consumer`.

    Celery takes a command that the ACL refuses for a lost connection and connects anew, five times a second, without
    a word of which command it was. Here that is said, and asked again at a pace, with the model kept: who mends the
    ACL finds the worker going on.

    refused: called with what Redis said, at each turn while it is waited for.
    """

    class Patient(Consumer):
        def on_connection_error_after_connected(self, exc: Any) -> None:
            super().on_connection_error_after_connected(exc)
            if isinstance(exc, NoPermissionError):
                log.error("redis_refuses", error=str(exc), asked_again_in_s=_ASK_AGAIN_S)
                _wait(lambda: refused(f"Redis refuses this user: {exc}"))

    return Patient


def _wait(turn: Callable[[], None]) -> None:
    until = time.monotonic() + _ASK_AGAIN_S
    # None, or the exit code of a worker that was told to stop; 0 is one.
    while time.monotonic() < until and state.should_stop is None and state.should_terminate is None:
        turn()
        time.sleep(_PAUSE_S)
