"""Named points where a test can kill or delay this process. Inert unless VETLINE_FAULT is set, in tests alone.

    VETLINE_FAULT="before_record=kill%0.01; judge=kill~poison; after_claim=sleep:2"

kills with SIGKILL at 1 % of the records, at each judging of a URI that contains "poison", and sleeps 2 s after
each claim. Points: after_pop, after_claim, fetch, judge, before_record, after_record, before_ring,
after_plain_pop, before_plain_done.
"""

import os
import random
import signal
import time
from dataclasses import dataclass
from functools import cache

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from moderation.errors import BadSetting

POINTS = (
    "after_pop", "after_claim", "fetch", "judge", "before_record", "after_record", "before_ring",
    "after_plain_pop", "before_plain_done",
)  # fmt: skip


class FaultSettings(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    fault: str = Field(default="", validation_alias="VETLINE_FAULT")


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule: at `point`, for subjects that contain `about`, with this probability, do `action`."""

    point: str
    action: str
    about: str
    probability: float


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Rules of the form point=action[~substring][%probability], separated by semicolons."""
    return tuple(_parse(rule.strip()) for rule in text.split(";") if rule.strip())


def _parse(rule: str) -> Fault:
    rest, _, probability = rule.partition("%")
    rest, _, about = rest.partition("~")
    point, equals, action = rest.partition("=")
    if not equals or point not in POINTS or action.partition(":")[0] not in {"kill", "sleep"}:
        raise BadSetting(f"VETLINE_FAULT: cannot read {rule!r}")
    return Fault(point, action, about, float(probability or 1))


@cache
def _faults() -> tuple[Fault, ...]:
    return parse_faults(FaultSettings().fault)


def at(point: str, subject: str = "") -> None:
    """Does what VETLINE_FAULT says for this point, if anything."""
    for fault in _faults():
        if fault.point == point and fault.about in subject and random.random() < fault.probability:  # noqa: S311 - no secret
            _happen(fault.action)


def _happen(action: str) -> None:
    kind, _, seconds = action.partition(":")
    if kind == "sleep":
        time.sleep(float(seconds or 1))
    else:
        os.kill(os.getpid(), signal.SIGKILL)
