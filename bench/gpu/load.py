"""A closed loop of requests: always the same number in flight, each with an image of its own."""

import asyncio
import base64
import hashlib
import json
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROMPT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\n"
    "{policy}<|im_end|>\n<|im_start|>assistant\n"
)
POLICY = Path(__file__).parents[2] / "moderation" / "policies" / "llavaguard-default.txt"
RATING = [25663, 78770]  # "Safe", "Unsafe"
GREEDY = {"temperature": 0, "ignore_eos": True, "skip_special_tokens": False}


def prompt() -> str:
    """The training template around the default policy: 1,129 tokens with one <image>."""
    return PROMPT.format(policy=POLICY.read_text(encoding="utf-8").strip())


def full(tokens: int = 100) -> dict[str, Any]:
    """A whole answer. Random weights end anywhere, so the end is ignored."""
    return {"text": prompt(), "sampling_params": {**GREEDY, "max_new_tokens": tokens}}


def rating_only() -> dict[str, Any]:
    """The fast mode: the answer's beginning is in the prompt, one token and its two logprobs come back."""
    return {
        "text": prompt() + '{\n    "rating": "',
        "sampling_params": {**GREEDY, "max_new_tokens": 1},
        "return_logprob": True,
        "token_ids_logprob": RATING,
    }


def as_ids(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """The same with the prompt as token ids, so that the server need not tokenise the policy for every image."""
    asked = json.dumps({"prompt": body["text"], "add_special_tokens": False}).encode()
    request = urllib.request.Request(f"{url}/tokenize", asked, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        ids = json.load(answer)["tokens"]
    return {**{name: value for name, value in body.items() if name != "text"}, "input_ids": ids}


def flush(urls: Sequence[str]) -> None:
    """Have every prefix forgotten. A server refuses (HTTP 400) until the last answer is off its hands."""
    for url in urls:
        wanted = urllib.request.Request(f"{url}/flush_cache?timeout=20", method="POST")
        urllib.request.urlopen(wanted, timeout=60).read()


@dataclass(slots=True)
class Outcome:
    """What one run saw. Times in seconds."""

    in_flight: int
    wall_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    output_tokens: int = 0
    answers: dict[int, Any] = field(default_factory=dict)

    @property
    def images(self) -> int:
        return len(self.latencies_s)

    @property
    def rate(self) -> float:
        """Images per second over the whole run, the filling and emptying of the line included."""
        return self.images / self.wall_s

    def percentile(self, share: float) -> float:
        ranked = sorted(self.latencies_s)
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def drive(
    urls: Sequence[str], images: Sequence[bytes], body: dict[str, Any], *, in_flight: int, keep: bool = False,
    keyed: bool = False, timeout_s: float = 300.0,
) -> Outcome:  # fmt: skip
    """Send every image once, to the addresses in turn, and return when all are answered.

    keyed: each with the cache key and the hash that our judge sends with it.
    """
    own = keys if keyed else _no_keys
    return asyncio.run(_drive(urls, images, body, Outcome(in_flight), own, keep=keep, timeout_s=timeout_s))


def keys(image: bytes) -> dict[str, Any]:
    """As worker.judges.sglang_client has it."""
    digest = hashlib.sha256(image).hexdigest()
    return {"extra_key": digest, "mm_hashes": [digest[:16]]}


def _no_keys(_: bytes) -> dict[str, Any]:
    return {}


async def _drive(
    urls: Sequence[str], images: Sequence[bytes], body: dict[str, Any], outcome: Outcome,
    own: Callable[[bytes], dict[str, Any]], *, keep: bool, timeout_s: float,
) -> Outcome:  # fmt: skip
    import aiohttp  # type: ignore[import-not-found, unused-ignore]  # SGLang brings it

    todo = iter(enumerate(images))
    start = time.perf_counter()
    limits = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=limits, timeout=aiohttp.ClientTimeout(timeout_s)) as session:

        async def one_after_another() -> None:
            for index, image in todo:
                url = urls[index % len(urls)]
                whole = {**body, **own(image), "image_data": data_uri(image)}
                await _ask(session, url, whole, index, outcome, keep)

        await asyncio.gather(*(one_after_another() for _ in range(outcome.in_flight)))
    outcome.wall_s = time.perf_counter() - start
    return outcome


def data_uri(image: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(image).decode()


async def _ask(
    session: Any, url: str, body: dict[str, Any], index: int, outcome: Outcome, keep: bool
) -> None:
    sent = time.perf_counter()
    try:
        async with session.post(f"{url}/generate", json=body) as response:
            if response.status != 200:
                outcome.failures.append(f"{response.status}: {(await response.text())[:200]}")
                return
            answer = await response.json()
    except Exception as error:  # noqa: BLE001  # every way a server can fail is one thing here: no answer
        outcome.failures.append(repr(error)[:200])
        return
    now = time.perf_counter()
    outcome.latencies_s.append(now - sent)
    outcome.prompt_tokens += answer["meta_info"]["prompt_tokens"]
    outcome.output_tokens += answer["meta_info"]["completion_tokens"]
    if keep:
        outcome.answers[index] = answer
