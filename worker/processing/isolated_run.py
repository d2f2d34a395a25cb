"""The isolated run: a suspect is judged alone in a child process, and only a death seen from here condemns it.

A count of crashes cannot tell the item that kills from its neighbours that were in hand when somebody else killed
the worker. So an item that was in hand at two deaths is not set aside; it walks the same path once more in a
process of its own. If that process dies while this one lives to see it, the item is poison. If this one is killed
as well, nothing was proved, and it is tried again, up to the ledger's bound.
"""

import json
import os
import subprocess
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import structlog

from moderation import metrics
from moderation.assessment import Claim
from moderation.errors import JudgeTimeout, Poison, error_named
from moderation.policy import PolicyRevision
from moderation.verdict import Verdict
from worker.judges.settings import SglangSettings
from worker.processing.step_timer import StepTimer
from worker.runtime.judge import RuntimeJudge
from worker.settings import WorkerSettings

log = structlog.get_logger()

_FETCH_AND_DECODE_S = 60.0  # generous: a bound for a child that hangs, not a budget
_START_S = 60.0  # loading a model on a busy machine


class IsolatedRun:
    """One observed child, started when first needed and used for one suspect at a time."""

    def __init__(self, settings: WorkerSettings, runtime: RuntimeJudge | None = None) -> None:
        """runtime: the server that this worker keeps for itself, which a suspect is let in to alone."""
        self._settings = settings
        self._runtime = runtime
        self._server: SglangSettings | None = None  # that the child asks, where it is the worker's own
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def assess(self, claim: Claim, policy: PolicyRevision, timer: StepTimer) -> Verdict:
        """As `worker.processing.assess.assess`. Raises Poison if the child, or the worker's own runtime, died of it."""
        with timer.step("trial"), self._lock, self._alone() as server:
            log.warning("trial_started", assessment=str(claim.id), crashes=claim.crashes)
            if server != self._server:
                self.stop()
                self._server = server
            answer = self._observed({"uri": claim.uri, "policy": policy.model_dump(mode="json")})
            if "verdict" in answer:
                return Verdict.model_validate(answer["verdict"])
            raise error_named(answer["code"], answer["message"])

    def _alone(self) -> AbstractContextManager[SglangSettings | None]:
        return self._runtime.alone(self._settings.judge_timeout_s) if self._runtime else nullcontext()

    def _observed(self, request: dict[str, Any]) -> dict[str, Any]:
        """As `_ask`, and counted."""
        result = "no_answer"
        try:
            answer = self._ask(request)
            result = "verdict" if "verdict" in answer else "error"
        except Poison:
            result = "poison"
            raise
        finally:
            metrics.TRIALS.labels(result).inc()
        return answer

    def stop(self) -> None:
        if self._child is not None:
            with self._child as child:  # which closes its pipes and waits for it
                child.kill()
            self._child = None

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        child = self._running()
        assert child.stdin is not None
        assert child.stdout is not None
        overtime = threading.Timer(self._limit_s, child.kill)
        overtime.start()
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            in_time = overtime.is_alive()
            overtime.cancel()
        if line.endswith(b"\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = child.wait()
        self._child = None
        if not in_time:
            raise JudgeTimeout(f"no answer from its trial within {self._limit_s:.0f} s")
        raise Poison(f"its trial process died with it, alone ({_how(code)})")

    @property
    def _limit_s(self) -> float:
        return self._settings.judge_timeout_s + _FETCH_AND_DECODE_S

    def _running(self) -> subprocess.Popen[bytes]:
        """The child, past its start: a child that cannot start says nothing about an item."""
        if self._child is None or self._child.poll() is not None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "worker.processing.isolated_child", self._settings.model_dump_json()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **_address(self._server)},
                process_group=0,  # a Ctrl-C at the terminal is the worker's to handle
            )
            assert self._child.stdout is not None
            overtime = threading.Timer(_START_S, self._child.kill)
            overtime.start()
            ready = self._child.stdout.readline()
            overtime.cancel()
            if ready != b"ready\n":
                code = self._child.wait()
                self._child = None
                raise JudgeTimeout(f"its trial process did not start ({_how(code)})")
        return self._child


def _address(server: SglangSettings | None) -> dict[str, str]:
    """For a child that is to ask this server and start none: not in its arguments, where anybody reads the key."""
    if server is None:
        return {}
    key = server.api_key.get_secret_value() if server.api_key else ""
    named = {
        "URL": server.url,
        "API_KEY": key,
        "MODEL": server.model,
        "WEIGHTS_SHA256": server.weights_sha256,
    }
    return {f"VETLINE_SGLANG_{name}": value for name, value in named.items() if value}


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
