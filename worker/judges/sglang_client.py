"""Speaks SGLang's own HTTP API: for all threads at once, with a wall-clock deadline over every call.

It asks `/generate` with one image each and never in lists (one bad image fails a whole list). It uses
httpcore, httpx's transport, because only there a deadline can be kept over each socket operation (see
deadline.py).
"""

import base64
import json
import math
import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import httpcore
import structlog

from moderation.errors import JudgeTimeout, RuntimeFault, RuntimeUnavailable
from worker.judges.connections import Connections
from worker.judges.deadline import Deadline
from worker.judges.generation import Generation, generation_of
from worker.judges.sglang_faults import Busy, DuplicateRid, abort_of, error_of

log = structlog.get_logger()

MAX_BODY_BYTES = 16 * 1024 * 1024  # /server_info is the longest, some 100 kB
ABORT_TIMEOUT_S = 1.0  # and so the longest that closing waits
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0  # between asks of a server whose queue is full

# What a dead, dying or restarting server looks like; and what a slow one does.
GONE = (httpcore.NetworkError, httpcore.RemoteProtocolError, httpcore.ConnectTimeout)
SLOW = (httpcore.ReadTimeout, httpcore.WriteTimeout)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image as /generate takes it.

    Always a `data:` URI: SGLang takes bare base64 that starts with "/" for a path, and every JPEG's does.
    sha256: of the encoded bytes. As extra_key it keeps two images from ever sharing a cache entry, for which
    SGLang itself compares 30 bits; as mm_hashes it saves the scheduler hashing the pixels.
    """

    base64: bytes
    media_type: str
    sha256: str

    @classmethod
    def of(cls, data: bytes, media_type: str) -> "EncodedImage":
        return cls(base64.b64encode(data), media_type, sha256(data).hexdigest())


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to ask. logprob_ids: tokens whose logprobs are wanted at each output position.

    text_ids: the text as a JSON list of its token ids, to be sent in its place; see prompt_tokens.
    """

    text: str
    sampling: dict[str, Any]
    image: EncodedImage | None = None
    logprob_ids: tuple[int, ...] = ()
    text_ids: bytes | None = None

    def body(self, rid: str) -> bytes:
        fields: dict[str, Any] = {"rid": rid, "sampling_params": self.sampling}
        if self.text_ids is None:
            fields["text"] = self.text
        if self.logprob_ids:
            # logprob_start_len stays at its default: any other asks for logprobs of the whole prompt.
            fields |= {"return_logprob": True, "token_ids_logprob": list(self.logprob_ids)}
        # Put together by hand: json.dumps would scan megabytes of base64 for quotes while holding the GIL.
        parts = [b"{"]
        if self.text_ids is not None:
            parts += [b'"input_ids":', self.text_ids, b","]
        if self.image is not None:
            fields |= {"extra_key": self.image.sha256, "mm_hashes": [self.image.sha256[:16]]}
            media_type = self.image.media_type.encode()
            parts += [b'"image_data":"data:', media_type, b";base64,", self.image.base64, b'",']
        return b"".join((*parts, json.dumps(fields).encode()[1:]))


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes


class SglangClient:
    """Thread-safe. url: base address, such as http://127.0.0.1:30000."""

    def __init__(
        self,
        url: str,
        *,
        keep_alive_s: float = 3.0,
        connect_timeout_s: float = 2.0,
        api_key: str | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._headers = [(b"Content-Type", b"application/json")]
        if api_key:
            self._headers.append((b"Authorization", f"Bearer {api_key}".encode()))
        self._connections = Connections(
            self.url, keep_alive_s=keep_alive_s, connect_timeout_s=connect_timeout_s
        )
        self._aborts = ThreadPoolExecutor(max_workers=4, thread_name_prefix="sglang-abort")
        self._closing = threading.Event()
        self._losses = 0

    @property
    def losses(self) -> int:
        """Changes whenever a connection was refused or dropped: another server may be there now."""
        return self._losses

    def close(self) -> None:
        """Let go of every connection; asks that wait for a full queue end. May be called twice."""
        self._closing.set()
        self._aborts.shutdown(wait=True, cancel_futures=True)
        self._connections.close()

    def generate(self, request: Request, *, deadline: Deadline) -> Generation:
        """Ask once, and again only where the server was full or knew the request id.

        Raises RequestRefused; RuntimeFault; JudgeTimeout when the deadline passes, and then the server is
        told to abort; RuntimeUnavailable for a dropped or refused connection, and for a queue that stays
        full.
        """
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return self._generate_once(request, deadline)
            except DuplicateRid:
                continue
            except Busy as busy:
                wait_s = pause_s * random.uniform(0.5, 1.5)  # noqa: S311 - spreads threads, guards nothing
                if deadline.left_s() <= wait_s or self._closing.wait(wait_s):
                    raise RuntimeUnavailable(f"the server stays busy: {busy}") from busy
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _generate_once(self, request: Request, deadline: Deadline) -> Generation:
        rid = uuid.uuid4().hex  # one length for all: SGLang aborts every id that starts with the one given
        start = time.perf_counter()
        try:
            reply = self.call("POST", "/generate", request.body(rid), deadline=deadline)
        except JudgeTimeout:
            self._abort_later(rid)
            raise
        elapsed_ms = round((time.perf_counter() - start) * 1000, 3)
        if reply.status != 200:
            raise error_of(reply.status, reply.body)
        generation = generation_of(reply.body, elapsed_ms=elapsed_ms)
        if generation.finish_reason == "abort":
            raise abort_of(generation.finish)
        return generation

    def get(self, path: str, *, deadline: Deadline) -> Any:
        """The JSON behind a path. Raises RuntimeUnavailable, JudgeTimeout, or what the status means."""
        return self._json(self.call("GET", path, deadline=deadline))

    def tokenize(self, text: str, *, deadline: Deadline) -> list[int]:
        """The token ids of a text. Raises as `get` does."""
        body = json.dumps({"prompt": text}).encode()
        reply_json = self._json(self.call("POST", "/tokenize", body, deadline=deadline))
        tokens = reply_json.get("tokens") if isinstance(reply_json, dict) else None
        if not isinstance(tokens, list):
            raise self._stranger()
        return tokens

    def _stranger(self) -> RuntimeUnavailable:
        return RuntimeUnavailable(f"what answers at {self.url} does not speak SGLang's API")

    def _json(self, reply: Reply) -> Any:
        if reply.status != 200:
            raise _without_retry(reply)
        try:
            return json.loads(reply.body)
        except ValueError as error:
            raise self._stranger() from error

    def call(self, method: str, path: str, body: bytes | None = None, *, deadline: Deadline) -> Reply:
        """One HTTP exchange. Raises RuntimeUnavailable, JudgeTimeout, RuntimeFault."""
        try:
            with (
                deadline.applied(),
                self._connections.one() as connection,
                connection.stream(method, self.url + path, headers=self._headers, content=body) as response,
            ):
                return _read(response)
        except GONE as error:
            self._losses += 1
            raise RuntimeUnavailable(f"SGLang at {self.url} is not there: {_reason(error)}") from error
        except SLOW as error:
            raise JudgeTimeout("SGLang gave no answer before the deadline") from error
        except httpcore.ProtocolError as error:
            raise RuntimeFault(f"the exchange with SGLang broke a rule of HTTP: {_reason(error)}") from error

    def _abort_later(self, rid: str) -> None:
        """Tell the server on another thread, so that the caller is not kept past its deadline."""
        try:
            self._aborts.submit(self._abort, rid)
        except RuntimeError:  # the client is being closed; the closed connection tells the server too
            log.debug("abort_not_sent", rid=rid)

    def _abort(self, rid: str) -> None:
        body = json.dumps({"rid": rid}).encode()
        try:
            self.call("POST", "/abort_request", body, deadline=Deadline.after(ABORT_TIMEOUT_S))
        except (RuntimeUnavailable, RuntimeFault, JudgeTimeout) as error:
            log.info("abort_failed", rid=rid, error=str(error))


def _read(response: httpcore.Response) -> Reply:
    """The body, bounded. A connection that carried an error is closed, not used again.

    After an unhandled error SGLang closes its side, but image workers that it forked meanwhile hold the
    socket open, and a request sent there is never read (seen on 0.5.23). httpcore closes a connection whose
    response was not read to its end, so we stop at the last byte, before the end is noted.
    """
    wanted = _content_length(response) if response.status != 200 else math.inf
    parts: list[bytes] = []
    size = 0
    for part in response.iter_stream():
        parts.append(part)
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise RuntimeFault(f"SGLang's answer has more than {MAX_BODY_BYTES} bytes")
        if size >= wanted:
            break
    return Reply(response.status, b"".join(parts))


def _content_length(response: httpcore.Response) -> float:
    for name, value in response.headers:
        if name.lower() == b"content-length" and value.isdigit():
            return int(value)
    return math.inf


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _without_retry(reply: Reply) -> Exception:
    error = error_of(reply.status, reply.body)
    if isinstance(error, Busy | DuplicateRid):
        return RuntimeUnavailable(f"HTTP {reply.status}: {error}")
    return error
