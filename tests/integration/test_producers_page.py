"""docs/producers.md: its Python runs as written."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from moderation.ledger import counters
from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin

PAGE = (Path(__file__).parents[2] / "docs" / "producers.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize(("example", "count"), list(zip(EXAMPLES, [4999, 1], strict=True)))
def test_each_example_runs(services_env: dict[str, str], example: str, count: int) -> None:
    engine = open_ledger(services_env["DATABASE_URL"])
    seed_builtin(engine)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(example, "docs/producers.md", "exec"), {})
    assert counters.counts(engine) == {"queued": count}
    engine.dispose()
