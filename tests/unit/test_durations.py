"""Time spans as commands show them."""

import pytest

from moderation.cli.output import duration_text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, ""), (0, "0 s"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h"), (3_599_940, "41.7 d")],
)
def test_a_span_is_shown_in_a_unit_that_a_person_reads(seconds: float | None, shown: str) -> None:
    assert duration_text(seconds) == shown
