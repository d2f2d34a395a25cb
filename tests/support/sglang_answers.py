"""What a scripted SGLang answers with: texts, tokens, logprobs and errors in the shapes of real releases."""

import json
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tests.support.sglang_script import Do

SAFE, UNSAFE, END = 25663, 78770, 151645
RATING_IDS = {"Safe": SAFE, "Unsafe": UNSAFE}
SPECIAL_IDS = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": END}
# Qwen2's own ids for the pieces of the trained template; every other piece gets a stable made-up id.
KNOWN_IDS = {"{\n": 515, "   ": 262, ' "': 330, "rating": 21931, '":': 788, '",\n': 756, '"\n': 698, "}": 92}
_PIECE = re.compile(r"\{\n|   (?= \")| \"|\":|\",\n|\"\n|\}|[ ]?\w+|\s+|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished generation, before it is put into SGLang's envelope."""

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    finish_reason: dict[str, Any]


def split(text: str) -> list[str]:
    return _PIECE.findall(text)


def token_id(piece: str) -> int:
    return (
        RATING_IDS.get(piece)
        or KNOWN_IDS.get(piece)
        or 1000 + zlib.crc32(piece.encode("utf-8", "surrogatepass")) % 20000
    )


@lru_cache(maxsize=4096)
def tokenise(text: str, image_token_id: int | None) -> tuple[int, ...]:
    """Ids of a prompt: special tokens exactly, `<image>` as the script says, the rest made up but stable."""
    special = dict(SPECIAL_IDS) | ({"<image>": image_token_id} if image_token_id is not None else {})
    parts = re.split("(" + "|".join(map(re.escape, special)) + ")", text)
    ids: list[int] = []
    for part in parts:
        ids.extend([special[part]] if part in special else [token_id(piece) for piece in split(part)])
    return tuple(ids)


def template(do: Do) -> str:
    """The trained template: json.dumps with an indent of 4."""
    return json.dumps({"rating": do.rating, "category": do.category, "rationale": do.rationale}, indent=4)


def _swap_quotes(do: Do) -> str:
    return repr({"rating": do.rating, "category": do.category, "rationale": do.rationale})


MALFORMED: dict[str, Callable[[Do], str]] = {
    "fence": lambda do: f"```json\n{template(do)}\n```",
    "prose": lambda do: f"Here is my assessment:\n{template(do)}\nLet me know if you need more.",
    "trailing_comma": lambda do: template(do)[:-2] + ",\n}",
    "single_quotes": _swap_quotes,
    "lower_case": lambda do: template(do).replace(f'"{do.rating}"', f'"{do.rating.lower()}"'),
    "wrong_rating": lambda do: template(do).replace(f'"{do.rating}"', '"Maybe"'),
    "foreign_category": lambda do: template(do).replace(do.category, "Z1: Not in this policy"),
    "two_objects": lambda do: template(do) + "\n" + template(do),
    "duplicate_key": lambda do: template(do).replace("{\n", '{\n    "rating": "Safe",\n', 1),
    "extra_key": lambda do: template(do)[:-2] + ',\n    "score": 0.9\n}',
    "missing_rating": lambda do: json.dumps({"category": do.category, "rationale": do.rationale}, indent=4),
    "empty_rationale": lambda do: template(do.model_copy(update={"rationale": ""})),
    "empty": lambda do: "",
    "white_space": lambda do: " \n" * 2000,
    "refusal": lambda do: "I'm sorry, but I can't assess this image. It looks Safe to me.",
    "repetition": lambda do: "The image is Safe. " * 60,
    "bom": lambda do: "\ufeff" + template(do),
    "null_rating": lambda do: template(do).replace(f'"{do.rating}"', "null"),
    "array": lambda do: f"[{template(do)}]",
    "no_json": lambda do: f"rating: {do.rating}, category: {do.category}",
}


def text_of(do: Do) -> str:
    """What the model would say if nothing cut it. Raises KeyError for an unknown way to spoil an answer."""
    if do.kind == "bangs":
        return "!" * 200
    return MALFORMED[do.how](do) if do.kind == "malformed" else template(do)


def _continued(text: str, prompt: str) -> str:
    """The rest of an answer whose opening already stands at the end of the prompt."""
    for end in range(len(text), 0, -1):
        if prompt.endswith(text[:end]):
            return text[end:]
    return text


def _ended(text: str, sampling: dict[str, Any]) -> tuple[str, str | int]:
    """The text up to its first stop string, or to where its grammar ends; and what ended it."""
    grammar = sampling.get("regex")
    if grammar and (found := re.match(grammar, text)):
        text = found[0]
    stops = sampling.get("stop") or []
    places = [(text.index(stop), stop) for stop in stops if stop in text]
    if not places:
        return text, END
    place, stop = min(places)
    return text[:place], str(stop)


def generate(do: Do, prompt: str, sampling: dict[str, Any]) -> Answer:
    """The answer as far as max_new_tokens (or `cut`) lets it go; the token that ends it counts as one."""
    if do.kind == "text":  # as it stands, whatever was asked
        pieces = split(do.text)
        given = {"type": do.finish_reason or "stop"}
        return Answer(do.text, tuple(map(token_id, pieces)), tuple(pieces), given)
    text, matched = _ended(_continued(text_of(do), prompt), sampling)
    pieces = split(text)
    limit = int(sampling.get("max_new_tokens") or 128)
    limit = min(limit, do.tokens) if do.kind == "cut" else limit
    if len(pieces) + 1 <= limit:
        ids = (*map(token_id, pieces), END if matched == END else token_id(str(matched)))
        finish: dict[str, Any] = {"type": "stop", "matched": matched}
    else:
        pieces = pieces[:limit]
        ids, finish = tuple(map(token_id, pieces)), {"type": "length", "length": limit}
    if do.finish_reason is not None:
        finish = {"type": do.finish_reason}
    return Answer("".join(pieces), ids, (*pieces, "<|im_end|>"), finish)


def _probability(do: Do) -> float:
    given = do.p_unsafe if do.p_unsafe is not None else (0.97 if do.rating == "Unsafe" else 0.03)
    return min(max(given, 1e-9), 1 - 1e-9)


def logprobs(do: Do, answer: Answer, wanted: list[int], *, temperature: float) -> dict[str, Any]:
    """SGLang's logprob fields: [logprob, id, None] for each output token, a list of them for `wanted`.

    temperature divides the margin, as in SGLang; pass 1 for a server with SGLANG_RETURN_ORIGINAL_LOGPROB.
    """
    margin = math.log(_probability(do) / (1 - _probability(do))) / temperature
    unsafe = -math.log1p(math.exp(-margin)) if margin > -700 else margin
    safe = unsafe - margin
    at_rating: dict[int, float | None] = {SAFE: safe, UNSAFE: unsafe}
    if do.kind in ("nan_logprobs", "bangs"):
        at_rating = {SAFE: None, UNSAFE: None}  # NaN, as SGLang's JSON writes it
    own: list[list[Any]] = []
    others: list[list[list[Any]]] = []
    for token in answer.ids:
        rating = token in at_rating
        own.append([at_rating[token] if rating else -0.01, token, None])
        others.append([[at_rating.get(w, -20.0) if rating else -20.0 - w % 7, w, None] for w in wanted])
    return {"output_token_logprobs": own, "output_token_ids_logprobs": others}


def rating_logits(do: Do, answer: Answer) -> list[list[float | None] | None]:
    """What our sampler notes: [safe, unsafe] where a rating was drawn, whatever the temperature; null elsewhere."""
    margin = math.log(_probability(do) / (1 - _probability(do)))
    sick = do.kind in ("nan_logprobs", "bangs")
    noted: list[float | None] = [None, None] if sick else [17.0, 17.0 + margin]
    return [noted if token in (SAFE, UNSAFE) else None for token in answer.ids]


@dataclass(frozen=True, slots=True)
class ErrorBody:
    status: int
    media_type: str
    body: str


@dataclass(frozen=True, slots=True)
class Fault:
    """An error of /generate: its status in 0.5.16 and in 0.5.23, its message, and the shape of its body."""

    old: int
    new: int
    message: str
    shape: str  # nested {"error": {"message"}}, flat {"error"}, object {"object": "error", ...}, text

    def status(self, version: str) -> int:
        return self.old if tuple(map(int, version.split(".")[:3])) < (0, 5, 23) else self.new


def _refused(message: str) -> Fault:
    return Fault(400, 400, message, "nested")


def _busy(message: str) -> Fault:
    return Fault(503, 503, message, "object")


ERRORS: dict[str, Fault] = {
    "bad_request": _refused("temperature must be a non-negative finite number, got -1."),
    "contract": Fault(
        500, 400, "unknown field `max_tokens`, expected one of `max_new_tokens`, `stop`", "flat"
    ),
    "bad_json": Fault(400, 400, "1 validation error: JSON decode error", "object"),
    "context_too_long": _refused(
        "The input (20480 tokens) is longer than the model's context length (16384 tokens)."
    ),
    "too_many_tokens": _refused(
        "Requested token count exceeds the model's maximum context length of 16384 tokens."
    ),
    "prompt_too_long": _refused("Multimodal prompt is too long after expanding multimodal tokens."),
    "bad_grammar": _refused("Failed to compile regex grammar: Regex parsing error at position 4"),
    "duplicate_rid": _refused("Duplicate request ID detected: {rid}"),
    "undecodable": Fault(
        500, 400, "Error while processing image: Could not decode image: cannot identify image file", "nested"
    ),
    "decompression_bomb": Fault(500, 500, "", "text"),
    "preprocessing_timeout": Fault(500, 500, "", "text"),
    "internal": Fault(500, 500, "", "text"),
    "retracted": Fault(500, 500, "Retraction host KV pool exhausted. Aborting the request.", "object"),
    "queue_full": _busy("The request queue is full."),
    "preempted": _busy("The request is aborted by a higher priority request."),
    "waiting_timeout": _busy("Request waiting timeout reached."),
    "running_timeout": _busy("Request running timeout reached."),
    "unauthorized": Fault(401, 401, "Unauthorized", "flat"),
}


def error_body(name: str, version: str, *, rid: str, message: str | None = None) -> ErrorBody:
    """An error as that release words it. Raises KeyError for an error that there is not."""
    fault = ERRORS[name]
    status = fault.status(version)
    said = (message or fault.message).replace("{rid}", rid)
    if fault.shape == "text" or (status == 500 and fault.new != 500):
        return ErrorBody(500, "text/plain; charset=utf-8", "Internal Server Error")
    bodies: dict[str, Any] = {
        "nested": {"error": {"message": said}},
        "flat": {"error": said},
        "object": {"object": "error", "message": said, "type": str(status), "param": None, "code": status},
    }
    return ErrorBody(status, "application/json", json.dumps(bodies[fault.shape]))
