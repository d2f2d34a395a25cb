"""Prompts as the token ids that the server itself reads them as, asked once for each text.

A policy's prompt is the same for every image, yet as text SGLang tokenises its 5,500 characters for each: that took 61 %
of the HTTP process's main thread and an eighth of an H100's throughput (bench/gpu/NOTES.md). The ids come from the
server's own /tokenize, which calls the same tokenizer in the same way as /generate does with a text, so what the model
reads is the same to the last token, with no tokenizer on our side that could differ from the server's.
"""

import json
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import structlog

from moderation.errors import RequestRefused, RuntimeFault
from worker.judges.deadline import Deadline
from worker.judges.prompts import IMAGE, IMAGE_TOKEN_ID
from worker.judges.sglang_client import SglangClient

log = structlog.get_logger()

# A server that was exchanged while no connection of ours was open is asked anew within this time, which is shorter than
# a cold start. Three calls a minute cost nothing.
KEPT_S = 20.0
# A policy has one, and one for each rating and category where rationales are asked for apart.
MOST_TEXTS = 256


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """ids: a JSON list, ready to be sent; None where this text had better go as text."""

    ids: bytes | None
    losses: int  # the client's, when the server was asked
    until_s: float  # by the monotonic clock


class PromptTokens:
    """Called from many threads at once: one of them asks, the others wait for what it finds."""

    def __init__(self, client: SglangClient) -> None:
        self._client = client
        self._tokenized: OrderedDict[str, TokenizedPrompt] = OrderedDict()
        self._asking = threading.Lock()
        self._warned = False

    def of(self, text: str, *, deadline: Deadline) -> bytes | None:
        """The ids of a prompt as a JSON list; None where it is to be sent as text.

        Raises RuntimeUnavailable or JudgeTimeout where the server is not there or does not answer.
        """
        if known := self._fresh(text):
            return known.ids
        if not self._asking.acquire(timeout=max(deadline.left_s(), 0)):
            return None
        try:
            if known := self._fresh(text):
                return known.ids
            losses = self._client.losses
            ids = self._ask_server(text, deadline)
            self._keep(text, TokenizedPrompt(ids, losses, time.monotonic() + KEPT_S))
            return ids
        finally:
            self._asking.release()

    def _fresh(self, text: str) -> TokenizedPrompt | None:
        known = self._tokenized.get(text)
        if known is None or known.losses != self._client.losses or known.until_s < time.monotonic():
            return None
        return known

    def _keep(self, text: str, known: TokenizedPrompt) -> None:
        """Under the lock. Readers take single entries without it."""
        self._tokenized[text] = known
        self._tokenized.move_to_end(text)
        while len(self._tokenized) > MOST_TEXTS:
            self._tokenized.popitem(last=False)

    def _ask_server(self, text: str, deadline: Deadline) -> bytes | None:
        try:
            tokens = self._client.tokenize(text, deadline=deadline)
        except (RequestRefused, RuntimeFault) as error:
            self._tell(str(error))
            return None
        if not _fits(text, tokens):
            self._tell("its ids do not hold one image token for each <image> of the text")
            return None
        return json.dumps(tokens, separators=(",", ":")).encode()

    def _tell(self, why: str) -> None:
        """Warn, once for each judge: as text it is slower, and nothing else."""
        tell = log.debug if self._warned else log.warning
        tell("prompt_sent_as_text", url=self._client.url, error=why)
        self._warned = True


def _fits(text: str, tokens: list[Any]) -> bool:
    """Whether each `<image>` of the text is one token, where SGLang's model class looks for it."""
    whole = all(isinstance(token, int) for token in tokens)
    return whole and tokens.count(IMAGE_TOKEN_ID) == text.count(IMAGE)
