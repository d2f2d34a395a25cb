"""The path of one image: fetch, decode, judge. No Celery and no SQL; what goes wrong is raised as our own errors."""

from collections.abc import Callable
from copy import copy
from typing import Protocol
from uuid import UUID

from intake.picture import Fetched, Picture, View
from moderation import faults
from moderation.errors import VetlineError
from moderation.policy import PolicyRevision
from moderation.verdict import Ask, ImageFacts, Judgement, Rating, Verdict
from worker.processing.components import Components
from worker.processing.step_timer import StepTimer


class ReusableJudgement(Protocol):
    """A judgement that stands about the same pixels on the same basis."""

    @property
    def assessment_id(self) -> UUID: ...
    @property
    def judgement(self) -> Judgement: ...


Recall = Callable[[View], ReusableJudgement | None]


class LazyImage:
    """The image behind a URI: fetched and decoded when first looked at, once for all policies that judge it.

    What went wrong is remembered too: what could not be fetched for one policy is not fetched for the next.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._decoded: tuple[Fetched, Picture] | None = None
        self._error: VetlineError | None = None

    def look(self, components: Components, timer: StepTimer) -> tuple[Fetched, Picture]:
        """What was fetched and decoded. Raises what the fetcher and the decoder raise."""
        if self._error is not None:
            raise copy(self._error)
        if self._decoded is None:
            try:
                self._decoded = _fetch_and_decode(self.uri, components, timer)
            except VetlineError as error:
                self._error = copy(error)  # a traceback would keep the image's bytes
                raise
        return self._decoded


def assess(
    image: LazyImage,
    policy: PolicyRevision,
    components: Components,
    timer: StepTimer,
    *,
    recall: Recall = lambda _: None,
) -> Verdict:
    """Judge an image under one policy revision.

    recall: the judgement that stands about a view's pixels already, if there is one.
    timer: holds the time of each step, also when a step raises.
    Raises Permanent, Transient or Unavailable; nothing that goes wrong counts as Safe.
    """
    fetched, picture = image.look(components, timer)
    with timer.step("judge"):
        faults.at("judge", image.uri)
        view = picture.views[0]
        known = recall(view) if len(picture.views) == 1 else None
        if known is None:
            view, judgement = _judge_views(picture, policy, components)
    facts = _facts(fetched, picture, view, policy)
    judgement = known.judgement if known else judgement
    if facts.review_reasons:
        judgement = judgement.model_copy(update={"needs_review": True})
    return Verdict(
        judgement=judgement,
        image=facts,
        timings_ms=dict(timer.timings_ms),
        reused_from=known.assessment_id if known else None,
    )


def _fetch_and_decode(uri: str, components: Components, timer: StepTimer) -> tuple[Fetched, Picture]:
    with timer.step("fetch"):
        faults.at("fetch", uri)
        fetched = components.fetcher.fetch(uri)
    with timer.step("decode"):
        return fetched, components.decoder.decode(fetched.data, pixels=components.judge.needs_pixels)


def _judge_views(picture: Picture, policy: PolicyRevision, components: Components) -> tuple[View, Judgement]:
    """The worst judgement of a picture's views, with the asks of all of them. Unsafe ends the search."""
    asks: list[Ask] = []
    worst: tuple[View, Judgement] | None = None
    for view in picture.views:
        judgement = components.ask(view, policy)
        asks += [ask.model_copy(update={"view": view.name}) for ask in judgement.asks]
        if worst is None or _badness(judgement) > _badness(worst[1]):
            worst = view, judgement
        if judgement.rating is Rating.UNSAFE:
            break
    assert worst is not None, "a picture has at least one view"
    return worst[0], worst[1].model_copy(update={"asks": tuple(asks)})


def _badness(judgement: Judgement) -> tuple[bool, bool, float]:
    return judgement.rating is Rating.UNSAFE, judgement.needs_review, judgement.p_unsafe or 0.0


def _review_reasons(picture: Picture, policy: PolicyRevision) -> tuple[str, ...]:
    """Why a person should look at the picture, whatever was judged of it."""
    bound, found = policy.review_views_differ, picture.views_differ
    differs = bound is not None and found is not None and found >= bound
    return (("views_differ",) if differs else ()) + picture.marks


def _facts(fetched: Fetched, picture: Picture, view: View, policy: PolicyRevision) -> ImageFacts:
    return ImageFacts(
        bytes_sha256=picture.bytes_sha256,
        pixels_sha256=view.pixels_sha256,
        media_type=picture.media_type,
        width=picture.width,
        height=picture.height,
        frames=picture.frames,
        byte_count=picture.byte_count,
        view=view.name,
        etag=fetched.etag,
        version=fetched.version,
        pdq=view.pdq,
        pdq_quality=view.pdq_quality,
        views_differ=picture.views_differ,
        review_reasons=_review_reasons(picture, policy),
    )
