"""Several SGLang servers that run already, as one judge: each image goes to the one with the fewest in flight.

A server that goes away is left out and looked at again after 1, 2, 4 ... 30 s; what it had in hand is asked elsewhere at
once, but of those that were on their way when a connection broke each only once: it may be the one that kills servers.
The judge is unavailable only when all of them are.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpcore
import structlog

from intake.picture import View
from moderation.errors import JudgeTimeout, Misuse, RuntimeFault, RuntimeUnavailable
from moderation.policy import PolicyRevision
from moderation.verdict import Basis, Judgement
from worker.judges.protocol import Runtime
from worker.judges.sglang import SglangJudge

log = structlog.get_logger()

_FIRST_LOOK_S, _LONGEST_S = 1.0, 30.0
_BROKEN = 2  # servers that may go away under one image


@dataclass(slots=True, eq=False)
class Backend:
    """One of them. Guarded by the lock of the spread."""

    judge: SglangJudge
    in_flight: int = 0
    is_out: bool = False
    look_after_s: float = _FIRST_LOOK_S
    look_at: float = 0.0  # monotonic, where it is out
    is_doubted: bool = False  # it gave no answer, or a fault: is it well at all?

    @property
    def url(self) -> str:
        return self.judge.settings.url


class LoadBalancedJudge:
    """See protocol.Judge. A judgement says which model and version of the server that gave it."""

    name = SglangJudge.name
    needs_pixels = SglangJudge.needs_pixels

    def __init__(self, judges: Sequence[SglangJudge]) -> None:
        self._servers = [Backend(judge) for judge in judges]
        self._lock = threading.Lock()
        self._watch: threading.Thread | None = None
        self._closing = threading.Event()

    def check(self) -> None:
        wrong: list[Misuse] = []
        away: list[RuntimeUnavailable] = []
        for server in sorted(self._servers, key=lambda server: server.is_out):
            try:
                server.judge.check()
            except Misuse as error:
                wrong.append(error)
                self._leave_out(server, error)
            except RuntimeUnavailable as error:
                away.append(error)
                self._leave_out(server, error)
            else:
                self._take_in(server)
                return
        if wrong and not away:
            raise wrong[0]
        raise self._all_away(away[-1])

    def basis(self) -> Basis | None:
        """Known once a server has said it, and while all that have said it agree."""
        bases = {basis for server in self._servers if (basis := server.judge.basis()) is not None}
        return bases.pop() if len(bases) == 1 else None

    def runtime(self) -> Runtime:
        """Of all together: what differs is listed, and the state is how many are in."""
        runtimes = [server.judge.runtime() for server in self._servers]
        there = sum(not server.is_out for server in self._servers)
        return Runtime(
            self.name,
            f"{there} of {len(runtimes)} servers",
            ", ".join(sorted({one.version for one in runtimes if one.version})) or None,
            ", ".join(sorted({one.model for one in runtimes if one.model})) or None,
            _together([one.at_once for one in runtimes]),
        )

    def judge(self, view: View, policy: PolicyRevision, *, timeout_s: float) -> Judgement:
        deadline = time.monotonic() + timeout_s
        tried: set[str] = set()
        last: RuntimeUnavailable | None = None
        broken = 0
        while server := self._enter(tried):
            tried.add(server.url)
            try:
                return server.judge.judge(view, policy, timeout_s=deadline - time.monotonic())
            except RuntimeUnavailable as error:
                last = error
                broken += not _was_refused(error)
                self._leave_out(server, error)
            except (JudgeTimeout, RuntimeFault):
                self._doubt(server)
                raise
            finally:
                with self._lock:
                    server.in_flight -= 1
            if deadline <= time.monotonic():
                break
            if broken == _BROKEN:
                raise last
        raise self._all_away(last)

    def close(self) -> None:
        self._closing.set()
        if self._watch is not None:
            self._watch.join(timeout=1)
        for server in self._servers:
            server.judge.close()

    def _all_away(self, last: RuntimeUnavailable | None) -> RuntimeUnavailable:
        return RuntimeUnavailable(
            f"none of {len(self._servers)} SGLang servers can be asked: {last or 'all are out'}"
        )

    def _enter(self, tried: set[str]) -> Backend | None:
        """The server with the fewest in flight that is in and was not tried yet, with one more in flight."""
        with self._lock:
            there = [server for server in self._servers if not server.is_out and server.url not in tried]
            if not there:
                return None
            chosen = min(there, key=lambda server: server.in_flight)
            chosen.in_flight += 1
            return chosen

    # --- servers that are away

    def _leave_out(self, server: Backend, error: Exception) -> None:
        with self._lock:
            if not server.is_out:
                log.warning("server_left_out", url=server.url, reason=str(error))
                server.look_after_s = _FIRST_LOOK_S
            else:
                server.look_after_s = min(server.look_after_s * 2, _LONGEST_S)
            server.is_out, server.is_doubted = True, False
            server.look_at = time.monotonic() + server.look_after_s
            self._look_on()

    def _take_in(self, server: Backend) -> None:
        with self._lock:
            if server.is_out:
                log.info("server_taken_in", url=server.url)
            server.is_out = server.is_doubted = False

    def _doubt(self, server: Backend) -> None:
        with self._lock:
            server.is_doubted = True
            self._look_on()

    def _look_on(self) -> None:
        """With the lock held: have a thread that looks until all are well."""
        if self._watch is None and not self._closing.is_set():
            self._watch = threading.Thread(target=self._look, name="servers", daemon=True)
            self._watch.start()

    def _look(self) -> None:
        while not self._closing.wait(_FIRST_LOOK_S / 4):
            now = time.monotonic()
            with self._lock:
                unwell = [server for server in self._servers if server.is_out or server.is_doubted]
                if not unwell:
                    self._watch = None
                    return
                due = [server for server in unwell if server.is_doubted or server.look_at <= now]
            for server in due:
                self._look_at(server)

    def _look_at(self, server: Backend) -> None:
        try:
            server.judge.check()
        except (RuntimeUnavailable, Misuse) as error:
            self._leave_out(server, error)
        except Exception:  # whatever it is, the others must be looked at too
            log.exception("server_check_failed", url=server.url)
            self._leave_out(server, RuntimeUnavailable("its check failed"))
        else:
            self._take_in(server)


def _together(told: Sequence[int | None]) -> int | None:
    """What all work on at once, where those that have not been asked yet are taken for like the others."""
    known = [number for number in told if number is not None]
    return round(sum(known) * len(told) / len(known)) if known else None


def _was_refused(error: RuntimeUnavailable) -> bool:
    """Whether the server never saw what it was to be asked."""
    return isinstance(error.__cause__, httpcore.ConnectError | httpcore.ConnectTimeout)
