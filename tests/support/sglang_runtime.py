"""The inside of a scripted SGLang: endpoints, requests in flight, aborts, queueing, a prefix cache.

One asyncio loop owns it. `changed` is notified after every event, so that tests can wait for one.
"""

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections import Counter, deque
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from tests.support.http_wire import Break, HttpAnswer, HttpListener, HttpRequest
from tests.support.sglang_answers import ErrorBody, error_body, generate, logprobs, rating_logits, tokenise
from tests.support.sglang_curve import Clockwork, Curve
from tests.support.sglang_requests import Recorded, asked, image_of, image_sha256, shown
from tests.support.sglang_script import Asked, Do, Player, Script

SYSTEM_TOKENS = 14  # of the ChatML system line, shared by all prompts of one extra_key
_TICK_S = 0.02  # of a clockwork
FAULTS = {"reset": "reset", "reset_mid_answer": "reset", "close_mid_answer": "close"}


def _json(value: Any, status: int = 200) -> HttpAnswer:
    return HttpAnswer(status, json.dumps(value).encode())


def _error(error: ErrorBody) -> HttpAnswer:
    return HttpAnswer(error.status, error.body.encode(), error.media_type)


class ScriptedRuntime:
    """Answers requests as its script says."""

    def __init__(self, script: Script, *, may_exit: bool = False) -> None:
        self.player = Player(script)
        self.listener: HttpListener | None = None
        self.changed = threading.Condition()
        self.start_id = random.getrandbits(30)  # SGLang draws a seed at each start and tells it
        self._may_exit = may_exit
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._in_flight: dict[str, asyncio.Event] = {}
        self._down: asyncio.Task[None] | None = None
        self._clockwork: Clockwork | None = None
        self._clock: asyncio.Task[None] | None = None
        self.requests: list[Recorded] = []
        self.calls: list[str] = []
        self.aborts: list[str] = []
        self._asks: Counter[tuple[str | None, str]] = Counter()
        self._cached: set[tuple[str, str]] = set()
        self._texts: dict[tuple[int, ...], str] = {}  # by the ids that /tokenize gave for them

    def play(self, script: Script) -> None:
        self.player = Player(script)

    def reset(self) -> None:
        for kept in (self.requests, self.calls, self.aborts, self._asks, self._cached):
            kept.clear()
        self._notify()

    def attach(self, listener: HttpListener) -> None:
        """Know the listener that serves this runtime."""
        self.listener = listener
        listener.on_change = self._notify

    def _notify(self) -> None:
        with self.changed:
            self.changed.notify_all()

    async def handle(self, request: HttpRequest) -> HttpAnswer:
        path = urlsplit(request.path).path
        if path.startswith("/_"):
            return await self._admin(path, request)
        self.calls.append(path)
        self._notify()
        if path == "/generate":
            return await self._generate(request)
        return self._other(path, request)

    # --- everything but /generate

    def _other(self, path: str, request: HttpRequest) -> HttpAnswer:
        script = self.player.script
        if path in ("/health", "/health_generate", "/ready"):
            return HttpAnswer(script.health, b"", "text/plain")
        if path in ("/model_info", "/get_model_info"):
            return _json(self._model_info())
        if path in ("/server_info", "/get_server_info"):
            info = {"version": script.version, "random_seed": self.start_id, "sampling_backend": "pytorch"}
            return _json({**self._model_info(), **info, **script.server_info})
        if path == "/v1/loads":
            return _json(self._loads())
        if path in ("/tokenize", "/v1/tokenize"):
            return self._tokenised(json.loads(request.body)["prompt"])
        if path == "/abort_request":
            return self._abort(json.loads(request.body))
        if path == "/flush_cache":
            self._cached.clear()
            return HttpAnswer(200, b"Cache flushed.\n", "text/plain")
        return _json({"detail": "Not Found"}, 404)

    def _tokenised(self, text: str) -> HttpAnswer:
        script = self.player.script
        if script.tokenize != 200:
            return HttpAnswer(script.tokenize, b"Internal Server Error", "text/plain")
        ids = tokenise(text, script.image_token_id)
        self._texts[ids] = text
        return _json({"tokens": list(ids), "count": len(ids), "max_model_len": 16384})

    def _text_of(self, body: dict[str, Any]) -> str:
        """Of ids that /tokenize never gave nobody knows the text."""
        return str(body.get("text") or self._texts.get(tuple(body.get("input_ids") or ()), ""))

    def _model_info(self) -> dict[str, Any]:
        path = self.player.script.model_path
        return {
            "model_path": path,
            "tokenizer_path": path,
            "is_generation": True,
            "preferred_sampling_params": None,
            "weight_version": "default",
            "served_model_name": path,
            "has_image_understanding": True,
            "model_type": "llava",
            "architectures": ["LlavaQwenForCausalLM"],
        }

    def _loads(self) -> dict[str, Any]:
        load = {
            "dp_rank": 0,
            "num_running_reqs": self._running,
            "num_waiting_reqs": len(self._waiting),
            "num_total_reqs": self._running + len(self._waiting),
        }
        return {"loads": [load], "version": self.player.script.version}

    def _abort(self, body: dict[str, Any]) -> HttpAnswer:
        rid = body.get("rid") or ""
        self.aborts.append(rid)
        for known, event in self._in_flight.items():
            if body.get("abort_all") or (rid and known.startswith(rid)):  # a prefix match, as in SGLang
                event.set()
        self._notify()
        return HttpAnswer(200, b"", "text/plain")

    async def _admin(self, path: str, request: HttpRequest) -> HttpAnswer:
        if path == "/_script":
            self.play(Script.model_validate_json(request.body))
        elif path == "/_reset":
            self.reset()
        elif path == "/_requests":
            return _json([{**shown(r)} for r in self.requests])
        elif path == "/_stats":
            return _json(self._stats())
        elif path == "/_down":
            for_s = float(json.loads(request.body)["for_s"])
            self._down = asyncio.get_running_loop().create_task(self._go_down(for_s))
        else:
            return _json({"detail": "Not Found"}, 404)
        return _json({"ok": True})

    async def _go_down(self, for_s: float) -> None:
        assert self.listener is not None
        await self.listener.stop(hold=True)
        await asyncio.sleep(for_s)
        await self.listener.listen()

    def _stats(self) -> dict[str, Any]:
        return {
            "requests": len(self.requests),
            "outcomes": Counter(r.outcome for r in self.requests),
            "did": Counter(r.did for r in self.requests),
            "running": self._running,
            "waiting": len(self._waiting),
            "connections": self.listener.accepted if self.listener else 0,
            "aborts": len(self.aborts),
        }

    # --- /generate

    async def _generate(self, request: HttpRequest) -> HttpAnswer:
        try:
            body = json.loads(request.body)
        except ValueError:
            return _error(error_body("bad_json", self._version, rid=""))
        record, refusal = self._record(body, request.connection)
        if refusal is not None:
            return self._end(record, _error(refusal))
        do = self.player.choose(Asked(**asked(record)))
        record.did = do.kind
        aborted = self._in_flight.setdefault(record.rid, asyncio.Event())
        try:
            return await self._admitted(do, record, aborted)
        except asyncio.CancelledError:
            self._close_record(record, "gone")
            raise
        except Break:
            self._close_record(record, "broken")
            raise
        finally:
            self._in_flight.pop(record.rid, None)

    @property
    def _version(self) -> str:
        return self.player.script.version

    def _record(self, body: dict[str, Any], connection: int) -> tuple[Recorded, ErrorBody | None]:
        rid = str(body.get("rid") or f"{len(self.requests) + 1:032x}")
        data, prefix, fault = image_of(body.get("image_data"))
        key = (image_sha256(data), self._text_of(body))
        self._asks[key] += 1
        record = Recorded(
            nth=len(self.requests) + 1,
            ask=self._asks[key],
            rid=rid,
            text=key[1],
            image=key[0],
            image_bytes=len(data or b""),
            image_prefix=prefix,
            body={k: v for k, v in body.items() if k not in ("text", "image_data")},
            connection=connection,
        )
        self.requests.append(record)
        self._notify()
        if rid in self._in_flight:
            fault = "duplicate_rid"
        elif "max_tokens" in (body.get("sampling_params") or {}):
            fault = "contract"  # a name of the chat API
        return record, error_body(fault, self._version, rid=rid) if fault else None

    async def _admitted(self, do: Do, record: Recorded, aborted: asyncio.Event) -> HttpAnswer:
        script = self.player.script
        while script.capacity is not None and self._running >= script.capacity:
            if script.max_queued is not None and len(self._waiting) >= script.max_queued:
                return self._end(record, _error(error_body("queue_full", self._version, rid=record.rid)))
            await self._turn()
        self._running += 1
        try:
            return await self._treated(do, record, aborted)
        finally:
            self._running -= 1
            self._wake_one()

    async def _turn(self) -> None:
        """Wait until a running request has ended."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                self._wake_one()  # it was ours already: pass it on
            raise

    def _wake_one(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    async def _treated(self, do: Do, record: Recorded, aborted: asyncio.Event) -> HttpAnswer:
        if self.player.script.curve is not None and do.kind != "hang":
            await self._worked_through(self.player.script.curve)
        wait_s = None if do.kind == "hang" else do.latency_s
        if await _aborted_within(aborted, wait_s):
            return self._end(record, _json(self._envelope(Do(kind="abort"), record)), "aborted")
        if do.kind == "error":
            body = error_body(do.error, self._version, rid=record.rid, message=do.message)
            return self._end(record, _error(body))
        if do.kind == "status":
            return self._end(record, HttpAnswer(do.status, do.text.encode(), "text/plain"))
        if do.kind == "garbage":
            return self._end(record, HttpAnswer(200, b"<html>not SGLang</html>", "text/html"))
        if do.kind == "exit" and self._may_exit:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = _json(self._envelope(do, record))
        if do.kind in FAULTS:
            wire = answer.wire()
            raise Break(FAULTS[do.kind], b"" if do.kind == "reset" else wire[: len(wire) // 2])
        return self._end(record, answer, "aborted" if do.kind == "abort" else "answered")

    async def _worked_through(self, curve: Curve) -> None:
        """Until a clockwork that all in flight share has done this request's work."""
        if self._clockwork is None:
            self._clockwork = Clockwork(curve)
            self._clock = asyncio.get_running_loop().create_task(self._run_clock(self._clockwork))
        done = asyncio.get_running_loop().create_future()
        self._clockwork.enter(done)
        await done

    async def _run_clock(self, clockwork: Clockwork) -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.monotonic()
            for done in clockwork.advance(now - before):
                if isinstance(done, asyncio.Future) and not done.done():
                    done.set_result(None)
            before = now

    def _end(self, record: Recorded, answer: HttpAnswer, outcome: str = "answered") -> HttpAnswer:
        self._close_record(record, outcome if answer.status == 200 else "error", answer.status)
        stuck = answer.status == 500 and self.player.script.after_500 == "stuck"
        return replace(answer, stuck_after=stuck, close_after=answer.status == 500 and not stuck)

    def _close_record(self, record: Recorded, outcome: str, status: int | None = None) -> None:
        record.outcome, record.status = outcome, status
        record.answered_at_s = time.monotonic()
        self._notify()

    def _envelope(self, do: Do, record: Recorded) -> dict[str, Any]:
        """The body of a 200: text, output_ids and meta_info as SGLang 0.5.16 to 0.5.23 give them."""
        script = self.player.script
        sampling = record.sampling
        answer = generate(do, record.text, sampling)
        image = script.image_tokens if record.image else 0
        prompt = len(tokenise(record.text, script.image_token_id)) + image
        record.cached_tokens = self._take_cached(record, prompt)
        meta: dict[str, Any] = {
            "id": record.rid,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": prompt,
            "weight_version": "default",
            "completion_tokens": len(answer.ids),
            "cached_tokens": record.cached_tokens,
            "e2e_latency": time.monotonic() - record.at_s,
        }
        if do.kind == "abort":
            said = do.message or "Abort before prefill"
            reason = {"type": "abort", "message": said, "status_code": None, "err_type": None}
            meta |= {"finish_reason": reason, "completion_tokens": 0}
            return {"text": "", "output_ids": [], "meta_info": meta}
        if record.body.get("return_logprob"):
            hot = float(sampling.get("temperature", 1.0))
            scale = 1.0 if script.original_logprobs or hot == 0 else hot
            wanted = list(record.body.get("token_ids_logprob") or [])
            meta |= logprobs(do, answer, wanted, temperature=scale)
        if script.rating_logits:
            meta["vetline_rating_logits"] = rating_logits(do, answer)
        return {"text": answer.text, "output_ids": list(answer.ids), "meta_info": meta}

    def _take_cached(self, record: Recorded, prompt_tokens: int) -> int:
        """Tokens of this prompt in a radix cache: for a known image, the image's and all before it."""
        if record.image is None:
            return 0
        key = (str(record.body.get("extra_key")), record.image)
        known = key in self._cached
        self._cached.add(key)
        return min(prompt_tokens - 1, SYSTEM_TOKENS + self.player.script.image_tokens) if known else 0


async def _aborted_within(aborted: asyncio.Event, wait_s: float | None) -> bool:
    if wait_s == 0:
        return aborted.is_set()
    try:
        await asyncio.wait_for(aborted.wait(), wait_s)
    except TimeoutError:
        return False
    return True
