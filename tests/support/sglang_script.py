"""What a scripted SGLang does: rules that match a request and say how to treat it.

A script is plain JSON, so that it can be given in Python, in a file, or to a running server (POST /_script):

    {"version": "0.5.23",
     "default": {"kind": "verdict", "rating": "Safe", "latency_s": 0.01},
     "rules": [{"when": {"share": 0.3, "ask": 1}, "do": {"kind": "malformed", "how": "fence"}},
               {"when": {"nth": 7}, "do": {"kind": "error", "error": "queue_full"}, "times": 1}]}

The first rule whose `when` matches, and which has not fired `times` times, decides; else the default does.
"""

from hashlib import sha256
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tests.support.sglang_curve import Curve

Kind = Literal[
    "verdict",  # a well-formed answer in the trained template
    "text",  # `text` as it stands
    "malformed",  # a verdict spoiled in the way that `how` names: see sglang_answers.MALFORMED
    "cut",  # a verdict cut after `tokens` tokens, finish reason length
    "bangs",  # a run of "!", what an fp16 overflow looks like
    "nan_logprobs",  # a verdict whose logprobs are NaN
    "abort",  # HTTP 200 with finish reason abort
    "error",  # HTTP error named by `error`, in the shape of the reported version
    "status",  # HTTP `status` with `text` as its body
    "garbage",  # HTTP 200 whose body is no JSON
    "hang",  # no answer until the request is aborted or the client goes
    "reset",  # the connection is reset before any answer
    "reset_mid_answer",  # half of the answer, then a reset
    "close_mid_answer",  # half of the answer, then an orderly close
    "exit",  # the whole server process dies by SIGKILL (only where it runs as a program)
]


class Do(BaseModel):
    """How to treat a request. Fields that a kind does not use are ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = "verdict"
    rating: str = "Safe"
    category: str = "NA: None applying"
    rationale: str = "The image shows nothing that the policy restricts."
    p_unsafe: float | None = Field(default=None, ge=0, le=1)  # None: 0.03 for Safe, 0.97 for Unsafe
    latency_s: float = Field(default=0.0, ge=0)
    how: str = "fence"
    tokens: int = Field(default=20, ge=0)
    text: str = ""
    finish_reason: str | None = None  # stop, length, abort; None: as it follows from the text
    error: str = "internal"
    status: int = 500
    message: str | None = None  # in place of the error's own


class When(BaseModel):
    """Conditions on a /generate request; all that are given must hold.

    nth counts requests since the last reset, from 1. ask counts those with the same image and prompt, from 1.
    share: a stable share of all images, by their sha256 and `salt`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    nth: int | tuple[int, ...] | None = None
    every: int | None = Field(default=None, ge=1)
    image: str | None = None
    text: str | None = None
    ask: int | tuple[int, ...] | None = None
    share: float | None = Field(default=None, ge=0, le=1)
    salt: str = ""
    temperature: float | None = None
    grammar: bool | None = None
    one_token: bool | None = None  # whether max_new_tokens is 1


class Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    when: When = When()
    do: Do = Do()
    times: int | None = Field(default=None, ge=0)


class Script(BaseModel):
    """A whole script. image_token_id None: the tokenizer does not know `<image>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = "0.5.23"
    model_path: str = "/models/LlavaGuard-v1.2-0.5B-OV"
    image_token_id: int | None = 151646
    image_tokens: int = 2929  # of one 640x480 image under anyres_max_9
    rating_logits: bool = False  # True: it has our sampler, which notes the rating's logits unasked
    server_info: dict[str, Any] = Field(default_factory=dict)  # more of what /server_info says
    original_logprobs: bool = True  # False: logprobs are those after temperature, SGLang's own default
    health: int = 200
    tokenize: int = 200  # HTTP status of /tokenize
    curve: Curve | None = (
        None  # in place of capacity and of the default's latency: how fast it is with how many in flight
    )
    capacity: int | None = Field(default=None, ge=1)  # requests running at once; the rest wait
    max_queued: int | None = Field(default=None, ge=0)  # requests waiting before "queue full"
    keep_alive_s: float = Field(default=5.0, gt=0)  # uvicorn's, as SGLang sets it
    # What becomes of a connection after a 500. uvicorn closes it; but image workers that SGLang forked in
    # between hold the socket too, so a client may see it open, though nobody reads from it (seen on 0.5.23).
    after_500: Literal["stuck", "close"] = "stuck"
    default: Do = Do()
    rules: tuple[Rule, ...] = ()


class Asked(BaseModel):
    """What rules look at in one /generate request."""

    model_config = ConfigDict(frozen=True)

    nth: int
    ask: int
    image: str | None  # sha256 of the image's bytes
    text: str
    sampling: dict[str, Any]


def _holds(wanted: int | tuple[int, ...] | None, value: int) -> bool:
    if wanted is None:
        return True
    return value in wanted if isinstance(wanted, tuple) else value == wanted


def _in_share(when: When, image: str | None) -> bool:
    if when.share is None:
        return True
    digest = sha256(f"{when.salt}{image}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < when.share


def matches(when: When, asked: Asked) -> bool:
    sampling = asked.sampling
    grammar = any(sampling.get(key) for key in ("regex", "json_schema", "ebnf"))
    return (
        _holds(when.nth, asked.nth)
        and _holds(when.ask, asked.ask)
        and (when.every is None or asked.nth % when.every == 0)
        and (when.image is None or when.image == asked.image)
        and (when.text is None or when.text in asked.text)
        and (when.temperature is None or when.temperature == sampling.get("temperature"))
        and (when.grammar is None or when.grammar == grammar)
        and (when.one_token is None or when.one_token == (sampling.get("max_new_tokens") == 1))
        and _in_share(when, asked.image)
    )


class Player:
    """Plays one script and remembers how often each rule fired. Owned by the server's loop."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._fired = [0] * len(script.rules)
        self._for_any: list[int] = []
        self._for_image: dict[str, list[int]] = {}  # so that a script may have a rule for each of many images
        for index, rule in enumerate(script.rules):
            image = rule.when.image
            (self._for_any if image is None else self._for_image.setdefault(image, [])).append(index)

    def choose(self, asked: Asked) -> Do:
        own = self._for_image.get(asked.image, []) if asked.image else []
        for index in sorted((*own, *self._for_any)):
            rule = self.script.rules[index]
            spent = rule.times is not None and self._fired[index] >= rule.times
            if not spent and matches(rule.when, asked):
                self._fired[index] += 1
                return rule.do
        return self.script.default
