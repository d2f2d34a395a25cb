"""The canary: a real image through the whole server. /health asks for text alone and stays 200 when images fail."""

import itertools
import struct
import threading
import time
import zlib

import structlog

from moderation.errors import VetlineError
from moderation.policy import builtin_policies
from moderation.verdict import Rung
from worker.judges import prompts
from worker.judges.ask_session import AskSession, brief_form
from worker.judges.deadline import Deadline
from worker.judges.ladder import LadderStep
from worker.judges.prompts import Mode
from worker.judges.sampling import PROFILES
from worker.judges.sglang_client import EncodedImage, SglangClient

log = structlog.get_logger()

_SIDE_PX = 336  # two tiles
_STEP = LadderStep(
    Rung.GRAMMAR, PROFILES["fast"]
)  # it can always be parsed, whatever the weights have learned
_AGAIN_S = 0.5  # one failure may be a neighbour's: 0.5.23 gives up all that is queued when one image hangs


class Canary:
    """Asks about an image that no cache knows. May be asked from many threads: they share what one finds out."""

    def __init__(self, client: SglangClient, *, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._shades = itertools.count(int(time.time()))
        self._lock = threading.Lock()
        self._begun_at = -1.0
        self._problem: str | None = None

    def problem(self, *, timeout_s: float | None = None) -> str | None:
        """What is wrong with the server; None where an image was answered, by an ask that began after this call."""
        called_at = time.monotonic()
        with self._lock:
            if self._begun_at < called_at:
                self._begun_at = time.monotonic()
                self._problem = self._find_problem(timeout_s or self._timeout_s)
            return self._problem

    def close(self) -> None:
        self._client.close()

    def _find_problem(self, timeout_s: float) -> str | None:
        deadline = Deadline.after(timeout_s)
        first = self._ask(deadline)
        if first is None or deadline.left_s() <= _AGAIN_S:
            return first
        time.sleep(_AGAIN_S)
        return self._ask(deadline)

    def _ask(self, deadline: Deadline) -> str | None:
        policy = builtin_policies()[0]
        session = AskSession(
            client=self._client,
            image=EncodedImage.of(picture(next(self._shades)), "image/png"),
            prompt=prompts.render(Mode.TRAIN, policy.prompt),
            names=policy.category_names,
            deadline=deadline,
            salvage=False,
            wants_p=False,
        )
        try:
            session.climb(brief_form(policy.category_names), [_STEP])
        except VetlineError as error:
            log.warning("canary_failed", code=error.code, error=str(error))
            return f"{error.code}: {error}"
        return None


def picture(number: int) -> bytes:
    """A PNG of a grey slope with the number in its first pixels, so that no two are alike."""
    slope = [bytes((x + y) % 256 for x in range(_SIDE_PX)) for y in range(_SIDE_PX)]
    slope[0] = number.to_bytes(8, "big") + slope[0][8:]
    header = struct.pack(">IIBBBBB", _SIDE_PX, _SIDE_PX, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row for row in slope), 1)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )
