"""docs/producers.md: its Python runs as written."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from sqlalchemy import Engine

from moderation.doorbell import Doorbell
from moderation.ledger import counters
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from moderation.plain_queue import PlainQueue
from moderation.settings import QueueSettings
from worker.plain.intake import PlainIntake

PAGE = (Path(__file__).parents[2] / "docs" / "producers.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def take_plain(engine: Engine, redis_url: str) -> None:
    """As a worker does."""
    settings = QueueSettings()
    queue, doorbell = PlainQueue(redis_url, settings), Doorbell(redis_url, settings)
    assert PlainIntake(engine, queue, doorbell, worker="w1", settings=settings).turn() == 1
    queue.close()
    doorbell.close()


@pytest.mark.parametrize(("example", "count"), list(zip(EXAMPLES, [4999, 1, 1], strict=True)))
def test_each_example_runs(services_env: dict[str, str], example: str, count: int) -> None:
    engine = open_ledger(services_env["DATABASE_URL"])
    seed_builtin(engine)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(example, "docs/producers.md", "exec"), {})
    if "Celery(" in example:
        take_plain(engine, services_env["REDIS_URL"])
    assert counters.counts(engine) == {"queued": count}
    engine.dispose()
