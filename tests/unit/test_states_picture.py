"""docs/states.svg is what docs/draw_states.py draws, and shows the states that there are."""

import runpy
from pathlib import Path

import pytest

from moderation.assessment import TERMINAL, State

ROOT = Path(__file__).parents[2]
DRAWN = runpy.run_path(str(ROOT / "docs" / "draw_states.py"))


def test_the_picture_is_drawn_anew() -> None:
    assert (ROOT / "docs" / "states.svg").read_text() == DRAWN["draw"](), "run python docs/draw_states.py"


def test_every_state_is_reached_and_only_a_retry_leaves_an_ended_one() -> None:
    assert {move.after for move in DRAWN["MOVES"]} == set(State)
    leaving = {(move.before, move.after) for move in DRAWN["MOVES"] if move.before in TERMINAL}
    assert leaving == {(State.FAILED, State.QUEUED)}


@pytest.mark.parametrize("move", DRAWN["MOVES"], ids=lambda move: f"{move.before}-{move.after}")
def test_the_named_file_has_a_statement_that_makes_the_move(move: object) -> None:
    """A row that is submitted is queued by the column's default, and has no state before."""
    where, before, after = getattr(move, "where"), getattr(move, "before"), getattr(move, "after")  # noqa: B009
    statements = (ROOT / where).read_text()
    if before is None:
        assert "INSERT INTO assessment" in statements
    else:
        assert f"state = '{before}'" in statements
        assert f"'{after}'" in statements
