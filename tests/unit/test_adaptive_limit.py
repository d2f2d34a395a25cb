"""How many in flight: the adaptive limit finds where a runtime is full, whatever it is and wherever it starts."""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.concurrency.adaptive_limit import AdaptiveLimit, Phase, Window

SIZES = st.integers(min_value=1, max_value=400)


def saturated(limit: int, capacity: int, *, answer_s: float = 1.0) -> Window:
    """A runtime that works on `capacity` images at once and lets the rest wait."""
    return window(limit, min(limit, capacity) / answer_s)


def window(limit: int, rate: float) -> Window:
    return Window(answered=limit, faults=0, in_flight=limit, answer_s=limit / rate)


def searched(adaptive: AdaptiveLimit, rate_of: Callable[[int], float]) -> list[int]:
    """The limits that are tried until it rests, the last one being where."""
    tried = [adaptive.limit]
    for _ in range(200):
        adaptive.adapt(window(adaptive.limit, rate_of(adaptive.limit)))
        if adaptive.limit != tried[-1]:
            tried.append(adaptive.limit)
        if adaptive.phase is Phase.REST:
            return tried
    raise AssertionError("it never rests")


def test_it_doubles_while_that_does_not_lose_and_rests_at_the_smallest_that_is_good_enough() -> None:
    adaptive = AdaptiveLimit(start=32, least=4, most=512)
    assert searched(adaptive, lambda limit: min(limit, 100)) == [32, 64, 128, 256, 512, 128]


def test_a_runtime_that_was_full_from_the_start_is_asked_less() -> None:
    assert searched(AdaptiveLimit(start=32, least=4, most=64), lambda limit: min(limit, 10)) == [
        32,
        64,
        16,
        8,
        16,
    ]


@given(capacity=SIZES, start=SIZES)
def test_it_finds_the_capacity_from_wherever_it_starts(capacity: int, start: int) -> None:
    found = searched(AdaptiveLimit(start=start, least=1, most=800), lambda limit: min(limit, capacity))[-1]
    assert 0.97 * capacity <= found <= 2.1 * capacity + 2


@given(edge=st.integers(20, 500), start=st.integers(8, 64))
def test_it_rests_below_a_cliff_and_near_its_edge(edge: int, start: int) -> None:
    """The rate rises up to the edge and is halved beyond it, as where a cache is full and requests are thrown out."""
    found = searched(
        AdaptiveLimit(start=min(start, edge), least=4, most=800),
        lambda limit: limit**0.5 if limit <= edge else edge**0.5 / 2,
    )[-1]
    assert edge / 1.3 <= found <= edge


@pytest.mark.parametrize("seed", range(20))
def test_noise_does_not_have_it_rest_where_much_is_lost(seed: int) -> None:
    """The curve of an H100 (bench/gpu/NOTES.md), each window off by 3 %."""
    noise = random.Random(seed)
    found = searched(
        AdaptiveLimit(start=32, least=4, most=256), lambda limit: h100(limit) * noise.gauss(1, 0.03)
    )[-1]
    assert h100(found) >= 0.93 * h100(256)


def h100(limit: int) -> float:
    return 58.5 * limit / (limit + 11)


def test_a_cliff_that_was_met_is_not_tried_again_soon() -> None:
    adaptive = AdaptiveLimit(start=32, least=4, most=512)
    rate_of: Callable[[int], float] = lambda limit: limit if limit <= 100 else 20.0  # noqa: E731  # used twice
    found = searched(adaptive, rate_of)[-1]
    tried = set()
    for _ in range(1000):
        adaptive.adapt(window(adaptive.limit, rate_of(adaptive.limit)))
        tried.add(adaptive.limit)
    assert 80 <= found <= 100
    assert max(tried) <= 128


@given(st.lists(st.tuples(SIZES, st.integers(0, 20), st.floats(0.01, 100)), max_size=200))
def test_the_limit_keeps_its_bounds_whatever_it_hears(heard: list[tuple[int, int, float]]) -> None:
    adaptive = AdaptiveLimit(start=32, least=4, most=256)
    for answered, faults, answer_s in heard:
        adaptive.adapt(Window(answered, faults, in_flight=adaptive.limit, answer_s=answer_s))
        assert 4 <= adaptive.limit <= 256


@given(limit=st.integers(8, 256), later=st.lists(SIZES, max_size=100))
def test_after_faults_it_goes_down_and_stays_below_them(limit: int, later: list[int]) -> None:
    adaptive = AdaptiveLimit(start=limit, least=1, most=512)
    adaptive.adapt(Window(answered=20, faults=10, in_flight=limit, answer_s=1))
    assert adaptive.limit < limit
    for capacity in later:
        adaptive.adapt(saturated(adaptive.limit, capacity))
        assert adaptive.limit < limit


def test_faults_at_the_least_limit_leave_it_there() -> None:
    adaptive = AdaptiveLimit(start=4, least=4, most=256)
    adaptive.adapt(Window(answered=0, faults=10, in_flight=4, answer_s=0))
    assert adaptive.limit == 4


@pytest.mark.parametrize(("answered", "faults"), [(100, 2), (1000, 10), (0, 2)])
def test_a_bad_image_or_two_are_no_fault_of_the_limit(answered: int, faults: int) -> None:
    adaptive = AdaptiveLimit(start=32, least=4, most=256)
    for _ in range(3):
        adaptive.adapt(Window(answered, faults, in_flight=32, answer_s=1))
    assert adaptive.limit > 32


def test_it_looks_again_whether_the_best_has_moved() -> None:
    adaptive = AdaptiveLimit(start=32, least=4, most=512)
    assert searched(adaptive, lambda limit: min(limit, 40))[-1] == 64
    for _ in range(400):
        adaptive.adapt(saturated(adaptive.limit, 150))
    assert 150 <= adaptive.limit <= 225


def test_a_look_steps_down_where_that_costs_nothing() -> None:
    adaptive = AdaptiveLimit(start=32, least=4, most=512)
    searched(adaptive, lambda limit: min(limit, 35))
    for _ in range(1000):
        adaptive.adapt(saturated(adaptive.limit, 35))
    assert 35 <= adaptive.limit <= 44 or adaptive.limit == 52


def test_it_rests_ever_longer_where_nothing_moves() -> None:
    adaptive = AdaptiveLimit(start=32, least=4, most=512)
    searched(adaptive, lambda limit: min(limit, 32))
    looks = [
        number
        for number in range(3000)
        if (adaptive.phase, adaptive.adapt(saturated(adaptive.limit, 32)), adaptive.phase)[::2]
        == (Phase.REST, Phase.MEASURE)
    ]
    rests = [after - before for before, after in pairwise(looks)]
    assert rests == sorted(rests)
    assert rests[-1] > 500


def test_after_a_restart_of_the_runtime_it_measures_from_the_best_known() -> None:
    adaptive = AdaptiveLimit(start=32, least=4, most=512)
    for _ in range(3):
        adaptive.adapt(saturated(32, 40))
    assert (adaptive.limit, adaptive.phase) == (64, Phase.UP)
    adaptive.start_over()
    assert (adaptive.limit, adaptive.phase) == (32, Phase.MEASURE)


def test_it_begins_where_it_is_told_within_its_bounds_and_before_it_has_heard_anything() -> None:
    adaptive = AdaptiveLimit(start=32, least=4, most=256)
    assert adaptive.is_untried
    adaptive.begin_at(128)
    assert (adaptive.limit, adaptive.phase, adaptive.is_untried) == (128, Phase.MEASURE, True)
    adaptive.begin_at(1)
    assert adaptive.limit == 4
    adaptive.adapt(saturated(4, 40))
    assert not adaptive.is_untried


@pytest.mark.parametrize("bounds", [(0, 0, 5), (3, 4, 5), (6, 4, 5)])
def test_bounds_that_make_no_sense_are_refused(bounds: tuple[int, int, int]) -> None:
    start, least, most = bounds
    with pytest.raises(ValueError, match="least <= start <= most"):
        AdaptiveLimit(start=start, least=least, most=most)
