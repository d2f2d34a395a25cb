"""Which package may import which, seen in subprocesses: an import linter misses what a package's __init__ drags in."""

import json
import subprocess
import sys

import pytest

HEAVY = {"flower", "torch", "sglang", "transformers", "PIL", "onnxruntime", "numpy", "boto3"}
EXTRAS = {"fastapi", "uvicorn", "starlette", "pyarrow"}


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
        ("from moderation.cli.main import gather; gather()", HEAVY | EXTRAS | {"celery"}),
        ("import producer.serve.app", HEAVY | {"worker", "celery", "pyarrow"}),
        ("import worker.assembly, worker.station", {"torch", "sglang", "transformers", "producer", "PIL", "onnxruntime"}),
    ],
)  # fmt: skip
def test_what_an_import_loads(statement: str, forbidden: set[str]) -> None:
    assert loaded_by(statement) & forbidden == set()
