"""How many in flight: the adaptive limit finds where a runtime is full, whatever it is and wherever it starts."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.concurrency.adaptive_limit import AdaptiveLimit, Phase, Window

SIZES = st.integers(min_value=1, max_value=400)


def saturated(limit: int, capacity: int, *, answer_s: float = 1.0, noise: float = 1.0) -> Window:
    """A runtime that works on `capacity` images at once and lets the rest wait."""
    return Window(
        answered=8 * limit, faults=0, in_flight=limit, answer_s=answer_s * max(1.0, limit / capacity) * noise
    )


def climbed(adaptive_limit: AdaptiveLimit, capacity: int, windows: int) -> list[int]:
    limits = []
    for _ in range(windows):
        adaptive_limit.adapt(saturated(adaptive_limit.limit, capacity))
        limits.append(adaptive_limit.limit)
    return limits


def settled(adaptive_limit: AdaptiveLimit, capacity: int) -> int:
    """The limit once it rests."""
    for _ in range(60):
        adaptive_limit.adapt(saturated(adaptive_limit.limit, capacity))
        if adaptive_limit.phase is Phase.REST:
            return adaptive_limit.limit
    raise AssertionError("it never rests")


def test_it_grows_while_throughput_grows_and_goes_back_when_growth_brings_nothing() -> None:
    adaptive_limit = AdaptiveLimit(start=32, least=4, most=512)
    assert climbed(adaptive_limit, capacity=100, windows=5) == [48, 72, 108, 162, 86]
    assert settled(adaptive_limit, capacity=100) == 108


def test_a_runtime_that_was_full_from_the_start_is_asked_less() -> None:
    assert 10 <= settled(AdaptiveLimit(start=32, least=4, most=512), capacity=10) <= 13


@given(capacity=SIZES, start=SIZES)
def test_it_finds_the_capacity_from_wherever_it_starts(capacity: int, start: int) -> None:
    found = settled(AdaptiveLimit(start=start, least=1, most=600), capacity)
    assert 0.96 * capacity <= found <= 1.5 * capacity + 2


@given(st.lists(st.tuples(SIZES, st.integers(0, 20), st.floats(0.01, 100)), max_size=200))
def test_the_limit_keeps_its_bounds_whatever_it_hears(heard: list[tuple[int, int, float]]) -> None:
    adaptive_limit = AdaptiveLimit(start=32, least=4, most=256)
    for answered, faults, answer_s in heard:
        adaptive_limit.adapt(Window(answered, faults, in_flight=adaptive_limit.limit, answer_s=answer_s))
        assert 4 <= adaptive_limit.limit <= 256


@given(limit=st.integers(8, 256), later=st.lists(SIZES, max_size=100))
def test_after_faults_it_goes_down_and_stays_below_them(limit: int, later: list[int]) -> None:
    adaptive_limit = AdaptiveLimit(start=limit, least=1, most=512)
    adaptive_limit.adapt(Window(answered=20, faults=10, in_flight=limit, answer_s=1))
    assert adaptive_limit.limit < limit
    for capacity in later:
        adaptive_limit.adapt(saturated(adaptive_limit.limit, capacity))
        assert adaptive_limit.limit < limit


def test_faults_at_the_least_limit_leave_it_there() -> None:
    adaptive_limit = AdaptiveLimit(start=4, least=4, most=256)
    adaptive_limit.adapt(Window(answered=0, faults=10, in_flight=4, answer_s=0))
    assert adaptive_limit.limit == 4


@pytest.mark.parametrize(("answered", "faults"), [(100, 2), (1000, 10), (0, 2)])
def test_a_bad_image_or_two_are_no_fault_of_the_limit(answered: int, faults: int) -> None:
    adaptive_limit = AdaptiveLimit(start=32, least=4, most=256)
    adaptive_limit.adapt(Window(answered, faults, in_flight=32, answer_s=1))
    assert adaptive_limit.limit > 32


def test_it_looks_again_whether_the_best_has_moved() -> None:
    adaptive_limit = AdaptiveLimit(start=32, least=4, most=512)
    settled(adaptive_limit, capacity=40)
    climbed(adaptive_limit, capacity=150, windows=60)
    assert 150 <= adaptive_limit.limit <= 225


def test_it_rests_ever_longer_where_nothing_moves() -> None:
    adaptive_limit = AdaptiveLimit(start=32, least=4, most=512)
    tried = [
        number
        for number in range(400)
        if (adaptive_limit.adapt(saturated(adaptive_limit.limit, 32)), adaptive_limit.phase)[1] is Phase.UP
    ]
    rests = [after - before for before, after in pairwise(tried)]
    assert rests == sorted(rests)
    assert rests[-1] > 60


def test_after_a_restart_of_the_runtime_it_measures_from_the_best_known() -> None:
    adaptive_limit = AdaptiveLimit(start=32, least=4, most=512)
    adaptive_limit.adapt(saturated(32, 40))
    assert (adaptive_limit.limit, adaptive_limit.phase) == (48, Phase.UP)
    adaptive_limit.start_over()
    assert (adaptive_limit.limit, adaptive_limit.phase) == (32, Phase.MEASURE)


@pytest.mark.parametrize("bounds", [(0, 0, 5), (3, 4, 5), (6, 4, 5)])
def test_bounds_that_make_no_sense_are_refused(bounds: tuple[int, int, int]) -> None:
    start, least, most = bounds
    with pytest.raises(ValueError, match="least <= start <= most"):
        AdaptiveLimit(start=start, least=least, most=most)
