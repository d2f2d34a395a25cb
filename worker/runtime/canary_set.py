"""The canary set: images whose ratings are known. A model that disagrees with too many is not what was asked for."""

import json
from hashlib import sha256
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from intake.formats import sniff
from intake.picture import View
from moderation.errors import BadSetting, Unavailable, VetlineError
from moderation.policy import PolicyRevision, builtin_policies
from moderation.verdict import Rating
from worker.judges.protocol import Judge

log = structlog.get_logger()


class KnownImage(BaseModel):
    """A line of the file. image: a JPEG, PNG or WebP, from the file's own folder. policy: a built-in one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: Path
    rating: Rating
    policy: str = "llavaguard-default"


def read(path: Path) -> tuple[KnownImage, ...]:
    """Raises BadSetting, naming the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"VETLINE_RUNTIME_CANARY_SET: {path} cannot be read") from error
    canaries = tuple(_line(text, path, number) for number, text in enumerate(lines, 1) if text.strip())
    if not canaries:
        raise BadSetting(f"VETLINE_RUNTIME_CANARY_SET: {path} is empty")
    return canaries


def agreement(judge: Judge, known: tuple[KnownImage, ...], *, timeout_s: float) -> float:
    """The share that the judge rates as expected, 0 to 1; what cannot be judged counts as disagreement.

    Raises BadSetting for an image or policy that cannot be had; Unavailable as the judge does.
    """
    agreed = 0
    for item in known:
        rating = _rated(judge, item, timeout_s=timeout_s)
        agreed += rating is item.rating
        if rating is not item.rating:
            log.warning("canary_disagrees", image=item.image.name, expected=item.rating, found=rating)
    return agreed / len(known)


def _rated(judge: Judge, item: KnownImage, *, timeout_s: float) -> Rating | None:
    try:
        return judge.judge(_view(item), _policy(item.policy), timeout_s=timeout_s).rating
    except (Unavailable, BadSetting):
        raise
    except VetlineError:
        return None


def _line(text: str, path: Path, number: int) -> KnownImage:
    try:
        known = KnownImage.model_validate(json.loads(text))
    except (ValidationError, ValueError) as error:
        raise BadSetting(
            f"VETLINE_RUNTIME_CANARY_SET: {path}:{number} is not an image and its rating"
        ) from error
    _policy(known.policy)
    return known.model_copy(update={"image": path.parent / known.image})


def _view(item: KnownImage) -> View:
    try:
        data = item.image.read_bytes()
    except OSError as error:
        raise BadSetting(f"VETLINE_RUNTIME_CANARY_SET: {item.image} cannot be read") from error
    # No judge of a runtime looks at sizes and pixels; it sends the bytes.
    return View("whole", data, sniff(data), width=0, height=0, pixels_sha256=sha256(data).hexdigest())


def _policy(name: str) -> PolicyRevision:
    for policy in builtin_policies():
        if name in (policy.policy, policy.ref):
            return policy
    raise BadSetting(f"VETLINE_RUNTIME_CANARY_SET: {name} is no built-in policy")
