"""Which package may import which, seen in subprocesses: an import linter misses what a package's __init__ drags in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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
LIBRARIES = {"sqlalchemy", "sqlmodel", "pydantic", "psycopg", "redis", "celery", "structlog"}
# What each package may import of ours, besides itself. Arrows point down only.
ARROWS = {
    "moderation": set(),
    "intake": {"moderation"},
    "producer": {"moderation"},
    "worker": {"moderation", "intake"},
    "consumer": {"moderation", "intake"},
    "vetline": {"moderation", "producer", "consumer", "intake"},
}
# Loaded by SGLang's own processes, or by a decoder child that then shuts itself in.
NOT_OURS_TO_LOAD = ("worker.runtime.plugin.", "moderation.ledger.migrations.")
WORKER_ROOT = {"__init__", "app", "cli", "settings", "heartbeat", "sweeper", "service", "registration"}
IMPORT_ALL = """
import importlib, os, pkgutil, {package}
os.environ.update(DATABASE_URL="postgresql://nobody@localhost/none", REDIS_URL="redis://localhost:1/0")
for found in pkgutil.walk_packages({package}.__path__, "{package}."):
    if not found.name.startswith({skipped}) and not found.name.endswith("__main__"):
        importlib.import_module(found.name)
"""


def loaded_by(statement: str) -> set[str]:
    """Top-level names of all modules that the statement loads."""
    program = f"import json, sys\n{statement}\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=ROOT,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import producer", HEAVY | EXTRAS | {"worker", "consumer", "celery"}),
        ("import producer.cli, producer.serve.cli", HEAVY | EXTRAS | {"worker", "consumer", "celery"}),
        ("import consumer.feed", HEAVY | EXTRAS | {"worker", "producer", "celery"}),
        ("import moderation.queue, moderation.ledger.sweep, moderation.policy", HEAVY | {"worker", "producer", "consumer"}),
        ("import producer.cli, producer.serve.cli", {"redis", "opentelemetry", "rich", "structlog"}),
        ("import producer.serve.app", HEAVY | {"worker", "consumer", "celery", "pyarrow"}),
        (
            "import worker.broker.factory, worker.service",
            {"torch", "sglang", "transformers", "producer", "consumer", "PIL", "onnxruntime"},
        ),
        ("import vetline", HEAVY | EXTRAS | LIBRARIES | {"moderation", "producer", "consumer", "worker", "intake"}),
        ("from vetline import Client, AsyncClient", HEAVY | EXTRAS | {"worker", "consumer", "celery"}),
        ("from vetline import Feed", HEAVY | EXTRAS | {"worker", "producer", "celery"}),
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
    assert loaded_by(statement) & (SLOW - own | HEAVY | EXTRAS | {"producer", "worker", "consumer"}) == set()


def test_status_loads_no_more_than_the_ledger_needs() -> None:
    slow = SLOW - {"sqlalchemy", "psycopg", "pydantic", "asyncio"}
    assert loaded_by("from moderation.cli import status") & (slow | HEAVY | EXTRAS) == set()


def test_every_command_loads_without_the_queue_and_the_extras() -> None:
    statement = """
from moderation.cli.lazy import load
from moderation.cli.table import COMMANDS
for listed in COMMANDS.values():
    load(listed)
"""
    assert loaded_by(statement) & (HEAVY | EXTRAS | {"celery", "redis", "alembic"}) == set()


@pytest.mark.parametrize("package", ARROWS)
def test_no_module_of_a_package_imports_against_the_arrows(package: str) -> None:
    loaded = loaded_by(IMPORT_ALL.format(package=package, skipped=NOT_OURS_TO_LOAD))
    assert loaded & set(ARROWS) - {package} <= ARROWS[package]


def test_vetline_offers_three_names_and_no_others() -> None:
    import vetline

    assert dir(vetline) == ["AsyncClient", "Client", "Feed"]
    with pytest.raises(AttributeError, match="Worker"):
        vetline.Worker  # noqa: B018 - the access is what is tested


def test_the_root_of_worker_holds_its_eight_files_alone() -> None:
    assert {path.stem for path in (ROOT / "worker").glob("*.py")} == WORKER_ROOT
