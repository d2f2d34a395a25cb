"""Which package may import which, seen in subprocesses: an import linter misses what a package's __init__ drags in."""

import json
import subprocess
import sys

import pytest

HEAVY = {"flower", "torch", "sglang", "transformers", "PIL", "onnxruntime", "numpy", "boto3"}
EXTRAS = {"fastapi", "uvicorn", "starlette", "pyarrow"}
# What an answer from the table alone needs none of: vetline --help takes a tenth of a second without.
SLOW = {
    "sqlalchemy",
    "psycopg",
    "redis",
    "celery",
    "kombu",
    "alembic",
    "pydantic",
    "structlog",
    "rich",
    "asyncio",
}


def loaded_by(statement: str) -> set[str]:
    """Top-level names of all modules that the statement loads."""
    program = f"import json, sys\n{statement}\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(json.loads(said.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import producer", HEAVY | EXTRAS | {"worker", "celery"}),
        ("import producer.cli, producer.serve.cli", HEAVY | EXTRAS | {"worker", "celery"}),
        ("import moderation.queue, moderation.ledger.sweep, moderation.policy", HEAVY | {"worker", "producer"}),
        ("import producer.cli, producer.serve.cli", {"redis", "opentelemetry", "rich", "structlog"}),
        ("import producer.serve.app", HEAVY | {"worker", "celery", "pyarrow"}),
        ("import worker.assembly, worker.station", {"torch", "sglang", "transformers", "producer", "PIL", "onnxruntime"}),
    ],
)  # fmt: skip
def test_what_an_import_loads(statement: str, forbidden: set[str]) -> None:
    assert loaded_by(statement) & forbidden == set()


@pytest.mark.parametrize(
    ("words", "own"),
    [
        (["--help"], set()),
        (["--version"], set()),
        # Typer itself reads what was typed by pydantic.
        (["sttus"], {"pydantic"}),
        (["completion", "bash"], {"pydantic"}),
    ],
)
def test_what_is_answered_from_the_table_loads_nothing_slow(words: list[str], own: set[str]) -> None:
    statement = f"""
import contextlib, io
from moderation.cli.main import command_line
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    command_line()({words!r}, prog_name="vetline")
"""
    assert loaded_by(statement) & (SLOW - own | HEAVY | EXTRAS | {"producer", "worker"}) == set()


def test_status_loads_no_more_than_the_ledger_needs() -> None:
    slow = SLOW - {"sqlalchemy", "psycopg", "pydantic", "asyncio"}
    assert loaded_by("from moderation.cli import reading") & (slow | HEAVY | EXTRAS) == set()


def test_every_command_loads_without_the_queue_and_the_extras() -> None:
    statement = """
from moderation.cli.lazy import load
from moderation.cli.table import COMMANDS
for listed in COMMANDS.values():
    load(listed)
"""
    assert loaded_by(statement) & (HEAVY | EXTRAS | {"celery", "redis", "alembic"}) == set()
