"""Asking a sglang judge, for tests: a picture, a policy, and what goes wrong."""

from collections.abc import Callable
from hashlib import sha256

import pytest

from intake.picture import View
from moderation.errors import (
    VetlineError,
)
from moderation.policy import builtin_policies
from moderation.verdict import Judgement
from worker.judges.protocol import Judge
from worker.judges.sglang import SglangJudge

DEFAULT = builtin_policies()[0]
NUDITY = "O4: Nudity Content"
UNSAFE = {
    "kind": "verdict",
    "rating": "Unsafe",
    "category": NUDITY,
    "rationale": "It shows what is forbidden.",
}
MakeJudge = Callable[..., SglangJudge]


def view(data: bytes = b"\xff\xd8\xff one picture", *, name: str = "whole") -> View:
    return View(name, data, "image/jpeg", 4, 4, sha256(data).hexdigest())


def ask(judge: Judge, data: bytes = b"\xff\xd8\xff one picture", *, timeout_s: float = 10) -> Judgement:
    return judge.judge(view(data), DEFAULT, timeout_s=timeout_s)


def failing(judge: Judge, kind: type[VetlineError], *, timeout_s: float = 10) -> VetlineError:
    with pytest.raises(kind) as caught:
        ask(judge, timeout_s=timeout_s)
    return caught.value
