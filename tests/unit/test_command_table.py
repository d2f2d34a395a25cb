"""The table of commands, which help and completion are made from, and the commands themselves."""

import inspect
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from typer._click import Command
from typer.core import TyperGroup
from typer.main import get_group
from typer.testing import CliRunner

from moderation.cli.extras import EXTRAS
from moderation.cli.lazy import load
from moderation.cli.main import command_line
from moderation.cli.table import COMMANDS, GROUPS, Listed

ROOT = Path(__file__).parents[2]
_PACKAGES = ("moderation", "producer", "consumer", "worker")
_LONGEST = 60  # characters of a line of help: behind the longest name it still ends before column 80


def first_line(command: Command) -> str:
    return (command.help or "").split("\n\n")[0]


def all_commands() -> list[tuple[str, Command]]:
    """Every command and, behind it, those of its group; under the words that call it."""
    found: list[tuple[str, Command]] = []
    for name, listed in COMMANDS.items():
        command = load(listed)
        found.append((name, command))
        if isinstance(command, TyperGroup):
            found += [(f"{name} {below}", sub) for below, sub in command.commands.items()]
    return found


def help_of(*words: str, columns: int = 80) -> str:
    shown = CliRunner().invoke(
        command_line(), [*words, "--help"], env={"COLUMNS": str(columns)}, prog_name="vetline"
    )
    assert shown.exit_code == 0, shown.output
    return shown.output


@pytest.mark.parametrize("listed", COMMANDS.values(), ids=COMMANDS)
def test_a_line_of_the_table_is_the_first_of_the_command_itself(listed: Listed) -> None:
    assert first_line(load(listed)) == listed.help


def test_no_command_is_listed_twice() -> None:
    assert len(COMMANDS) == sum(map(len, GROUPS.values()))


def test_every_command_of_the_packages_is_in_the_table() -> None:
    """A Typer app at the top of a module that is not reached from the table would be dead."""
    sources = [path for package in _PACKAGES for path in (ROOT / package).rglob("*.py")]
    apps = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts) + ":commands"
        for path in sources
        if re.search(r"^commands = typer\.Typer\(", path.read_text(), re.MULTILINE)
    }
    assert apps == {listed.app for listed in COMMANDS.values()}
    for app in apps:
        module, _, attribute = app.partition(":")
        names = set(get_group(getattr(import_module(module), attribute)).commands)
        assert names == {listed.name for listed in COMMANDS.values() if listed.app == app}


def test_help_shows_every_command_once_and_in_its_group() -> None:
    sections = re.findall(r"^(\S[^\n]*):\n((?:  \S[^\n]*\n)+)", help_of(), re.MULTILINE)
    shown = {
        title: re.findall(r"^  (\S+)", body, re.MULTILINE) for title, body in sections if title != "Options"
    }
    assert shown == {title: [listed.name for listed in group] for title, group in GROUPS.items()}


def test_no_line_of_a_list_of_commands_wraps_in_80_columns() -> None:
    groups = [()] + [(name,) for name, command in all_commands() if isinstance(command, TyperGroup)]
    assert len(groups) > 5
    for words in groups:
        text = help_of(*words)
        listed = text[text.index("Options:") :]
        assert max(map(len, listed.splitlines())) <= 80
        assert "..." not in listed, "a line was cut"
        assert not re.search(r"^ {4,}\S", listed, re.MULTILINE), "a line was wrapped"


def test_first_lines_are_of_one_style() -> None:
    for name, command in all_commands():
        line = first_line(command)
        assert line == inspect.cleandoc(line), name
        assert "\n" not in line, name
        assert re.fullmatch(r"[A-Z][a-z]+,? [^.]+\.", line), f"{name}: a sentence, with its verb first"
        assert line.split()[0] not in {"The", "What", "Every", "All", "This", "Whether", "Named"}, name
        assert len(line) <= _LONGEST, f"{name}: {len(line)} characters"


def test_help_of_every_command_fits_80_columns() -> None:
    for name, _ in all_commands():
        wide = [line for line in help_of(*name.split()).splitlines() if len(line) > 80]
        assert wide == [], name


def test_options_stand_in_the_sections_that_they_name() -> None:
    text = help_of("enqueue")
    assert (
        text.index("Arguments:")
        < text.index("Options:")
        < text.index("Lists and tables:")
        < text.index("--uri-column")
    )
    assert "list[" not in text


@pytest.mark.parametrize(
    ("typed", "meant"), [("sttus", "status"), ("verdict", "verdicts"), ("requeue-stuk", "requeue-stuck")]
)
def test_an_unknown_command_names_the_nearest(typed: str, meant: str) -> None:
    said = CliRunner().invoke(command_line(), [typed], prog_name="vetline")
    assert said.exit_code == 2
    assert f"Did you mean '{meant}'" in said.stderr


def test_the_extras_are_those_of_the_package() -> None:
    """Each module that an extra brings, by its distribution; those that are not installed here are known by hand."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    brought: dict[str, set[str]] = {}
    for extra, requirements in project.items():
        for requirement in requirements if extra != "dev" else ():
            brought.setdefault(_normal(re.split(r"[\[<>=; ]", requirement)[0]), set()).add(extra)
    modules = {"sglang": {"sglang"}, "nvidia-ml-py": {"pynvml"}}  # only on a GPU host
    for module, distributions in packages_distributions().items():
        for distribution in distributions:
            modules.setdefault(_normal(distribution), set()).add(module)
    for distribution, extras in brought.items():
        named = modules[distribution] & EXTRAS.keys()
        assert named, f"{distribution}: no module of it is in the table"
        assert {EXTRAS[module] for module in named} <= extras, distribution
    assert set(EXTRAS.values()) == set(project) - {"dev"}


@pytest.mark.parametrize(
    ("absent", "words", "extra"),
    [
        ("flower", ["flower"], "worker"),
        ("worker", ["demo"], "worker"),
        ("fastapi", ["serve", "--no-tokens"], "serve"),
    ],
)
def test_a_command_without_its_extra_says_which_one_to_install(
    absent: str, words: list[str], extra: str
) -> None:
    """The module is hidden, as if nobody had installed it."""
    program = f"""
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
sys.argv = ["vetline", *{words!r}]
from moderation.cli import run
run()
"""
    services = {"DATABASE_URL": "postgresql://u@127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1"}
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, env=services
    )
    assert ended.returncode == 2, ended.stderr
    assert f"pip install 'vetline[{extra}]'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
