"""Commands in this process, against a ledger of the test's own."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import Engine
from typer.testing import CliRunner

from consumer.cli import evaluate, evaluations
from moderation.cli import policy as policies
from moderation.errors import VetlineError

Vetline = Callable[..., str]


@pytest.fixture
def vetline(ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> Vetline:
    """What a command prints on stdout. Raises our own errors, which `main` turns into exit codes."""
    monkeypatch.setenv("DATABASE_URL", ledger.url.render_as_string(hide_password=False))

    def run(*words: str, code: int = 0) -> str:
        app = typer.Typer()
        for module in (evaluate, evaluations, policies):
            app.registered_commands += module.commands.registered_commands
            app.registered_groups += module.commands.registered_groups
        done = CliRunner().invoke(app, words)
        if isinstance(done.exception, VetlineError):
            raise done.exception
        assert done.exit_code == code, (done.output, done.exception)
        return done.stdout

    return run


@pytest.fixture
def told(vetline: Vetline) -> Callable[..., Any]:
    return lambda *words, code=0: json.loads(vetline(*words, "--json", code=code))


@pytest.fixture
def policy_file(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """A policy of this id as a file; each call changes its title, so that it makes a new revision."""
    numbers = iter(range(1, 1000))

    def write(policy: str) -> str:
        path = tmp_path / f"{policy}-{next(numbers)}.yaml"
        path.write_text(f"id: {policy}\ntitle: {path.stem}\nbased_on: llavaguard-default\n")
        return str(path)

    return write
