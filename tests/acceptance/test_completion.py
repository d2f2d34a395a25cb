"""Completion as a shell asks for it, by the script that `vetline completion` prints."""

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from moderation.cli.table import COMMANDS
from tests.support.commands import run

_ASK = """
eval "$(vetline completion bash)"
COMP_WORDS=({words})
COMP_CWORD={last}
_vetline_completion vetline
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which `vetline` is this checkout's."""
    program = tmp_path / "bin" / "vetline"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m moderation.cli "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return f"{program.parent}:{os.environ['PATH']}"


def completed(folder: Path, path: str, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    script = _ASK.format(words=" ".join(map(shlex.quote, words)), last=len(words) - 1)
    said = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.returncode == 0, said.stderr
    assert said.stderr == ""
    return said.stdout.split()


def test_bash_completes_commands_options_and_values(tmp_path: Path, path: str) -> None:
    assert completed(tmp_path, path, "vetline", "") == list(COMMANDS)
    assert completed(tmp_path, path, "vetline", "re") == [name for name in COMMANDS if name.startswith("re")]
    assert completed(tmp_path, path, "vetline", "--v") == ["--version"]
    assert completed(tmp_path, path, "vetline", "policy", "re") == ["releases", "render", "retire"]
    assert completed(tmp_path, path, "vetline", "verdicts", "--fo") == ["--format"]
    assert completed(tmp_path, path, "vetline", "verdicts", "--format", "") == [
        "table",
        "jsonl",
        "csv",
        "parquet",
    ]


@pytest.mark.parametrize(
    ("shell", "shown"),
    [
        ("zsh", '"cancel":"Cancel assessments that no worker has claimed."'),
        ("fish", "cancel\tCancel assessments that no worker has claimed."),
    ],
)
def test_zsh_and_fish_are_answered_with_the_line_of_help(tmp_path: Path, shell: str, shown: str) -> None:
    """Asked as their scripts ask, since the shells themselves are seldom installed."""
    script = run(tmp_path, "completion", shell).stdout
    asked = {
        "_VETLINE_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "vetline canc",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    for name in ("_VETLINE_COMPLETE", "_TYPER_COMPLETE_ARGS"):
        assert name in script
    assert shown in run(tmp_path, env=asked).stdout


def test_an_unknown_shell_is_misuse(tmp_path: Path) -> None:
    ended = run(tmp_path, "completion", "tcsh")
    assert ended.returncode == 2
    assert "tcsh" in ended.stderr
