"""The path of one image: fetch, decode, judge. No Celery and no SQL; what goes wrong is raised as our own errors."""

from moderation import faults
from moderation.policy import PolicyRevision
from moderation.verdict import Ask, ImageFacts, Judgement, Rating, Verdict
from worker.clock import Clock
from worker.images.picture import Fetched, Picture, View
from worker.tools import Tools


def assess(uri: str, policy: PolicyRevision, tools: Tools, clock: Clock) -> Verdict:
    """Judge the image behind a URI under one policy revision.

    clock: holds the time of each step, also when a step raises.
    Raises Permanent, Transient or Unavailable; nothing that goes wrong counts as Safe.
    """
    with clock.step("fetch"):
        faults.at("fetch", uri)
        fetched = tools.fetcher.fetch(uri)
    with clock.step("decode"):
        picture = tools.decoder.decode(fetched.data, pixels=tools.judge.needs_pixels)
    with clock.step("judge"):
        faults.at("judge", uri)
        view, judgement = _judge_views(picture, policy, tools)
    return Verdict(
        judgement=judgement, image=_facts(fetched, picture, view), timings_ms=dict(clock.timings_ms)
    )


def _judge_views(picture: Picture, policy: PolicyRevision, tools: Tools) -> tuple[View, Judgement]:
    """The worst judgement of a picture's views, with the asks of all of them. Unsafe ends the search."""
    asks: list[Ask] = []
    worst: tuple[View, Judgement] | None = None
    for view in picture.views:
        judgement = tools.judge.judge(view, policy, timeout_s=tools.judge_timeout_s)
        asks += [ask.model_copy(update={"view": view.name}) for ask in judgement.asks]
        if worst is None or _badness(judgement) > _badness(worst[1]):
            worst = view, judgement
        if judgement.rating is Rating.UNSAFE:
            break
    assert worst is not None, "a picture has at least one view"
    return worst[0], worst[1].model_copy(update={"asks": tuple(asks)})


def _badness(judgement: Judgement) -> tuple[bool, bool, float]:
    return judgement.rating is Rating.UNSAFE, judgement.needs_review, judgement.p_unsafe or 0.0


def _facts(fetched: Fetched, picture: Picture, view: View) -> ImageFacts:
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
    )
