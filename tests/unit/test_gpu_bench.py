"""The arithmetic behind bench/gpu: what an image costs, and when two servers agree."""

from typing import Any

import pytest

from bench.gpu import exactness, line, plan
from bench.gpu.ceiling import H100_DENSE_TFLOPS, cost
from bench.gpu.load import Outcome
from bench.gpu.pictures import jpeg, jpegs


@pytest.mark.parametrize(
    ("size", "tiles", "prompt_tokens"),
    [((336, 336), 2, 2613), ((640, 480), 5, 4057), ((1024, 768), 7, 5853), ((1920, 1080), 16, 8397)],
)
def test_tiles_and_tokens_of_a_size_are_those_that_sglang_counts(
    size: tuple[int, int], tiles: int, prompt_tokens: int
) -> None:
    """The tokens were read from the answers of SGLang 0.5.16; an error here would bend every share of the ceiling."""
    expected = cost(*size, output_tokens=100)
    assert (expected.tiles, expected.prompt_tokens) == (tiles, prompt_tokens)


def test_the_chips_ceiling_at_640x480_is_some_140_images_a_second() -> None:
    assert H100_DENSE_TFLOPS / cost(640, 480, output_tokens=100).tera == pytest.approx(140, rel=0.03)


def answer(*ids: int, lead: float = 0.5, shift: float = 0.0) -> dict[str, Any]:
    """A server's answer with these tokens; `lead` is how far the best token is ahead of the second."""
    logprobs = [[-1.0 - shift, token, None] for token in ids]
    tops = [[[-1.0 - shift, token, None], [-1.0 - shift - lead, 99, None]] for token in ids]
    meta = {"output_token_logprobs": logprobs, "output_top_logprobs": tops}
    return {"text": " ".join(map(str, ids)), "meta_info": meta}


def test_equal_answers_agree_and_their_logprobs_are_compared_token_by_token() -> None:
    found = exactness.agreement({0: answer(1, 2), 1: answer(3)}, {0: answer(1, 2, shift=0.25), 1: answer(3)})
    assert (found.images, found.identical_texts, found.tokens_compared) == (2, 2, 3)
    assert (found.first_token_difference, found.any_token_difference) == (0.25, 0.25)
    assert found.margins_at_split == ()


def test_where_texts_part_the_margin_of_the_reference_is_told_and_the_rest_not_compared() -> None:
    found = exactness.agreement({0: answer(1, 2, 3, lead=0.125)}, {0: answer(1, 7, 3)})
    assert (found.identical_texts, found.tokens_compared, found.margins_at_split) == (0, 1, (0.125,))


def test_no_two_drawn_images_are_the_same() -> None:
    drawn = jpegs(40, [(64, 48), (48, 64)])
    assert len(set(drawn)) == 40
    assert drawn[3] == jpeg((48, 64), 3)


def test_a_run_can_be_named_on_the_command_line() -> None:
    assert plan.parsed("ours:mix:rating-ids:8:40") == plan.Run("ours", "mix", "rating-ids", 8, 40)
    with pytest.raises(ValueError, match="unknown size or mode"):
        plan.parsed("ours:9x9:full:8:40")


def test_percentiles_are_of_answers_that_came() -> None:
    seen = Outcome(in_flight=1, wall_s=10.0, latencies_s=[float(i) for i in range(100, 0, -1)])
    assert (seen.rate, seen.percentile(0.5), seen.percentile(0.95)) == (10.0, 51.0, 96.0)


def round_of(word: str, rate: float) -> dict[str, Any]:
    each = line.Round.parse(word)
    return {"kind": each.kind, "p_unsafe": each.p_unsafe, "profiled": each.profiled, "images_per_s": rate}


def test_the_queues_share_is_of_rounds_with_the_same_questions_and_no_profiler() -> None:
    rounds = [
        ("bare", 50.0),
        ("line", 49.0),
        ("bare", 50.0),
        ("bare+p", 40.0),
        ("line+p", 30.0),
        ("line+profile", 9.0),
    ]
    found = line.shares([round_of(word, rate) for word, rate in rounds])
    assert found == {"P(unsafe) off": pytest.approx(0.02), "P(unsafe) generation": pytest.approx(0.25)}


def test_a_round_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="is no round"):
        line.Round.parse("bare+profile")
