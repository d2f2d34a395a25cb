"""The corpus of mangled answers: tests/unit/corpus/*.jsonl, one case a line.

    {"name": ..., "answers": [{"text": ..., "finish": "stop"}, ...], "reaches": RUNG, ...}

answers: what the model says to the first ask, the second and so on; behind them it answers well. A text is a
string or a list of [piece, times]. reaches: the rung at which the verdict is reached, or malformed_answer.
What else stands there (rating, category, rationale, needs_review) must hold of the verdict; problem is how
the first answer's begins. The cuts were made at the token boundaries of Qwen2's tokenizer.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "unit" / "corpus"
EXPECTED = ("rating", "category", "rationale", "needs_review")


@dataclass(frozen=True, slots=True)
class Said:
    text: str
    finish: str


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    answers: tuple[Said, ...]
    reaches: str
    expected: dict[str, Any]
    problem: str | None


def _text(given: str | list[list[Any]]) -> str:
    return given if isinstance(given, str) else "".join(piece * times for piece, times in given)


def _case(line: str, file: str) -> Case:
    given = json.loads(line)
    return Case(
        name=f"{file}: {given['name']}",
        answers=tuple(Said(_text(a["text"]), a["finish"]) for a in given["answers"]),
        reaches=given["reaches"],
        expected={key: given[key] for key in EXPECTED if key in given},
        problem=given.get("problem"),
    )


def load() -> list[Case]:
    """Every case, in a stable order."""
    paths = sorted(FOLDER.glob("*.jsonl"))
    return [_case(line, path.stem) for path in paths for line in path.read_text("utf-8").splitlines()]
