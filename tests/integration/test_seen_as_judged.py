"""Whatever Chromium shows of a picture is among the views that are judged: over variants of each known kind of evasion."""

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.browser import Browser, browser, find_chromium
from bench.pictures import compare
from intake.decode import Decoder
from intake.settings import DecodeSettings
from tests.support.viewed_files import KINDS

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (Debian: apt install chromium)")

WITHIN = 8.0  # levels of 255, as everywhere
# Where viewers differ among themselves by more, and why: the same table is in docs/pictures.md.
WIDER = {
    "avif": 10.0
}  # Chromium takes the frames of a sequence without a colour box for video's narrow range
ENDS = {"decoded", "damaged_but_shown", "undecodable", "too_many_pixels", "unsupported_type"}


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(DecodeSettings(children=1, wall_s=60))
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    assert CHROMIUM is not None
    with browser(CHROMIUM) as found:
        yield found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_what_people_see_is_among_the_views(kind: str, decoder: Decoder, chromium: Browser) -> None:
    @settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(chance=st.randoms(use_true_random=True))
    def check(chance: Random) -> None:
        row = compare(kind, KINDS[kind](chance), decoder, chromium)
        assert row.outcome in ENDS
        assert row.distance is None or row.distance <= WIDER.get(kind, WITHIN), row
        assert not (row.shown and row.outcome == "undecodable"), (
            "a browser shows it, so its code has to say that"
        )

    check()
