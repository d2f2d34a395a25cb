"""What a page of the documentation shows, for tests that run it as written."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moderation.cli.main import command_line

ROOT = Path(__file__).parents[2]


def section(page: str, heading: str) -> str:
    """The text under `## heading`, up to the next one. Raises ValueError where there is none."""
    _, begun, rest = (ROOT / page).read_text().partition(f"\n## {heading}\n")
    if not begun:
        raise ValueError(f"{page} has no section {heading!r}")
    return rest.partition("\n## ")[0]


def blocks(page: str, heading: str, language: str = "sh") -> list[str]:
    """The fenced blocks of this language under a heading, in order; inside a list, without its indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", section(page, heading), re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def filled(block: str, **values: str) -> str:
    """A block with what a person puts in for its words in capitals, such as ID. Raises ValueError for one not there."""
    for word, value in values.items():
        if not re.search(rf"\b{word}\b", block):
            raise ValueError(f"no {word} in {block!r}")
        block = re.sub(rf"\b{word}\b", lambda _: value, block)  # noqa: B023 - used at once
    return block


def typed(
    block: str, folder: Path, env: Mapping[str, str], *, timeout_s: float = 60, codes: tuple[int, ...] = (0,)
) -> str:
    """A block run by bash in a folder, with `vetline` on PATH; what it printed. Fails on any other exit code."""
    path = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.environ["PATH"])])
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", block],
        cwd=folder,
        env={**os.environ, **env, "PATH": path},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode in codes, f"{block}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def run_here(block: str, env: Mapping[str, str]) -> str:
    """A block of `vetline` lines and nothing else, run in this process, which spares each its start."""
    said = []
    app = command_line()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("configure_logging", "configure_when_used"):  # for a process of its own
            patch.setattr(f"moderation.cli.main.{name}", lambda: None)
        for name, value in env.items():
            patch.setenv(name, value)
        for line in block.splitlines():
            program, *words = shlex.split(line, comments=True)
            assert program == "vetline"
            done = CliRunner().invoke(app, words, catch_exceptions=False)
            assert done.exit_code == 0, f"{line}\n{done.output}"
            said.append(done.output)
    return "".join(said)
