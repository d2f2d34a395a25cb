"""What Flower logs of workers that do not answer: nothing while there are none yet."""

import logging
import time

from celery.events.state import State
from flower.inspector import Inspector

from worker.flower.serve import is_news


def complaint(text: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord(Inspector.__module__, logging.WARNING, __file__, 1, text, args, None)


NOBODY = complaint("Inspect method %s failed", "stats")


def there_since(seconds: float) -> State:
    state = State()
    now = time.time()
    for at in (now - seconds, now):
        state.event(
            {"type": "worker-heartbeat", "hostname": "w1", "timestamp": at, "local_received": at, "freq": 2}
        )
    return state


def test_that_nobody_answers_is_news_only_of_workers_that_were_asked() -> None:
    assert not is_news(State(), NOBODY)
    assert not is_news(there_since(0.5), NOBODY), "it came while Flower waited for answers"
    assert is_news(there_since(10), NOBODY)
    assert is_news(State(), complaint("Inspect method %s failed: %s", "stats", "no Redis"))
