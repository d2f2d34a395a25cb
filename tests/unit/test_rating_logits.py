"""What our sampler in SGLang hands out, and what the judge reads by the same names and numbers."""

import pytest

from worker.judges import probability
from worker.judges.generation import _Meta
from worker.judges.server_identity import at_once
from worker.runtime.plugin import rating
from worker.runtime.plugin.rating import RatingLogits


class Rows:
    """Stands in for the tensor, and tells when it was read."""

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = rows
        self.reads = 0

    def tolist(self) -> list[list[float]]:
        self.reads += 1
        return self.rows


def test_logits_are_handed_out_where_a_rating_was_drawn_and_nowhere_else() -> None:
    step = RatingLogits(Rows([[25663.0, 3.5, -1.0], [42.0, 9.0, 9.0], [78770.0, 0.25, 4.0]]))
    assert [step[request] for request in range(3)] == [(3.5, -1.0), None, (0.25, 4.0)]


def test_a_step_is_read_once_and_only_when_somebody_looks() -> None:
    rows = Rows([[25663.0, 1.0, 2.0]] * 3)
    step = RatingLogits(rows)
    assert rows.reads == 0
    assert {step[request] for request in range(3)} == {(1.0, 2.0)}
    assert rows.reads == 1


def test_both_sides_go_by_the_same_names_and_numbers() -> None:
    assert rating.KEY in _Meta.model_fields
    assert (rating.SAFE_ID, rating.UNSAFE_ID) == (probability.SAFE_ID, probability.UNSAFE_ID)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({}, None),
        ({"max_running_requests": 256}, 256),
        ({"max_running_requests": 256, "max_total_num_tokens": 420_000}, 100),
        (
            {
                "max_running_requests": None,
                "internal_states": [{"effective_max_running_requests_per_dp": 48}],
            },
            48,
        ),
        ({"max_running_requests": "many", "internal_states": ["?"], "max_total_num_tokens": 100}, 1),
    ],
)
def test_a_server_tells_how_many_it_works_on_at_once(said: dict[str, object], found: int | None) -> None:
    assert at_once(said) == found
