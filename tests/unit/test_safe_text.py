"""What others wrote, as it is shown: nothing in it commands a terminal, a spreadsheet or a page, and all of it is there."""

import ast
import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderation.safe_text import csv_cell, csv_text, for_html, for_terminal, json_for_terminal

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202etxt.exe\u2066\r\nverdict: Safe\x00\U000e0041"


def test_a_terminal_is_shown_escapes_and_no_commands() -> None:
    assert for_terminal("\x1b[2J\x9b1m\u202ea\nb\tc") == r"\x1b[2J\x9b1m\u202ea\nb\tc"
    assert for_terminal("a\nb\tc\x1b", lines=True) == "a\nb\tc\\x1b"
    assert for_terminal("naïve 日本語 👩‍👩‍👧 עברית [bold]") == "naïve 日本語 👩‍👩‍👧 עברית [bold]"


@given(st.text())
def test_nothing_that_commands_is_left_and_twice_is_once(text: str) -> None:
    shown = for_terminal(text)
    assert not any(
        ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in "\u202a\u202b\u202c\u202d\u202e\u2066" for c in shown
    )
    assert for_terminal(shown) == shown


@given(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_stays_the_same_json(value: object) -> None:
    written = json.dumps(value, ensure_ascii=False)
    shown = json_for_terminal(written)
    assert json.loads(shown) == value
    assert for_terminal(shown, lines=True) == shown


@given(st.text(), st.sampled_from(["", "=", "+", "-", "@", "'", "''=", "\t=", "\uff1d"]))
def test_a_cell_is_no_formula_and_is_told_back(text: str, start: str) -> None:
    cell = csv_cell(start + text)
    assert not cell or cell[0] not in "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
    assert csv_text(cell) == start + text
    file = io.StringIO(newline="")
    csv.writer(file).writerow([cell])
    file.seek(0)
    assert csv_text(next(csv.reader(file))[0] if cell else "") == start + text


def test_html_is_escaped_and_its_direction_kept() -> None:
    assert for_html('<b a="1">\u202e') == "&lt;b a=&quot;1&quot;&gt;\\u202e"


PRINTS = {"echo", "secho", "print"}
# They write what no stranger wrote: answers between our processes, and the program that asks for a version.
MAY_PRINT = {"worker/processing/isolated_child.py", "moderation/cli/output.py"}


@pytest.mark.parametrize("package", ["moderation", "consumer", "producer", "worker", "intake"])
def test_no_command_prints_past_the_one_place(package: str) -> None:
    root = Path(__file__).parents[2]
    found = []
    for path in (root / package).rglob("*.py"):
        name = path.relative_to(root).as_posix()
        if name in MAY_PRINT or "/runtime/plugin/" in name:
            continue
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        found += [f"{name}:{call.lineno}" for call in calls if _name(call.func) in PRINTS]
    assert found == []


def _name(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
