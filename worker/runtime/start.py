"""A start: from weights to a server that has answered an image and is what it was asked to be."""

import secrets
import threading
import time
from collections.abc import Callable

import structlog
from pydantic import SecretStr

from moderation.errors import BadSetting, JudgeTimeout, RuntimeFault, RuntimeUnavailable
from moderation.services.child import LOOPBACK, free_port
from worker.judges.deadline import Deadline
from worker.judges.settings import SglangSettings
from worker.judges.sglang import SglangJudge
from worker.judges.sglang_client import SglangClient
from worker.runtime import canary_set, versions, weights
from worker.runtime.canary import Canary
from worker.runtime.command import command, environment, key_file
from worker.runtime.diagnosis import cause
from worker.runtime.plugin.launch import AFTER_START
from worker.runtime.process import RuntimeProcess
from worker.runtime.serving import Serving
from worker.runtime.settings import RuntimeSettings
from worker.runtime.weights import Weights

log = structlog.get_logger()

_LOOK_S = 0.2
_TELL_S = 10.0  # between lines on how far a start has come
_CALL_S = 25.0  # /health takes 1 to 20 s
_DOWNLOAD = (
    "import sys; from huggingface_hub import snapshot_download as get; get(sys.argv[1], revision=sys.argv[2])"
)


class StartCancelled(Exception):
    """The worker stops while a server starts."""


class Starter:
    """Starts servers, one after the other.

    tell: takes in words what is being waited for. stopped: ends a start that is under way.
    """

    def __init__(
        self,
        settings: RuntimeSettings,
        judge: SglangSettings,
        *,
        tell: Callable[[str], None],
        stopped: threading.Event,
    ) -> None:
        self._settings = settings
        self._judge = judge
        self._tell = tell
        self._stopped = stopped
        self._digest: tuple[object, str] | None = None  # and of which files it is
        self.process: RuntimeProcess | None = None  # what runs now, for whoever must end it from outside

    def start(self) -> Serving:
        """Raises BadSetting where only a person can help, RuntimeUnavailable where another try may, and Stopped."""
        traits = self._traits()
        self._tell("looking for the weights")
        model_weights = weights.find(self._settings, fetch=self._fetch)
        port, key = free_port(), secrets.token_urlsafe(24)
        with key_file(key) as file:
            line = command(self._settings, model_weights, traits, port=port, key_file=file)
            begun = time.monotonic()
            process = self.process = RuntimeProcess(line, environment(self._settings), secret=key)
            log.info("runtime_starting", pid=process.pid, port=port, command=" ".join(line))
            client = SglangClient(f"http://{LOOPBACK}:{port}", api_key=key)
            try:
                digest = self._digest_of(model_weights)
                self._wait_until_healthy(process, client, begun)
                serving = self._serving(process, client, model_weights, digest=digest, key=key, traits=traits)
                self._prove(serving, client)
            except BaseException:
                process.stop(within_s=self._settings.stop_s) if self._stopped.is_set() else process.kill()
                client.close()
                if self._stopped.is_set():
                    raise StartCancelled from None
                raise
        process.forget()
        elapsed_s = round(time.monotonic() - begun, 1)
        log.info("runtime_ready", pid=process.pid, elapsed_s=elapsed_s, weights=digest)
        return serving

    # --- what is started

    def _traits(self) -> versions.Traits:
        installed = versions.installed(self._settings.python) if not self._settings.command else None
        return versions.traits_of(installed) if installed else versions.newest()

    def _digest_of(self, model_weights: Weights) -> str:
        """While the server loads the same files: it costs no time of its own."""
        stamp = model_weights.stamp()  # they may be replaced between two starts
        if self._digest is None or self._digest[0] != stamp:
            self._tell("reading the weights")
            self._digest = stamp, model_weights.digest()
        digest = self._digest[1]
        if self._judge.weights_sha256 not in (None, digest):
            raise BadSetting(
                f"the weights of {model_weights.name} have sha256 {digest}, not VETLINE_SGLANG_WEIGHTS_SHA256"
            )
        return digest

    def _fetch(self, repository: str, revision: str) -> None:
        """Download a repository into the hub's cache. An interrupted download goes on where it was."""
        token = self._settings.hub_token
        own = environment(self._settings) | {"HF_HUB_OFFLINE": "0"}
        own |= {"HF_TOKEN": token.get_secret_value()} if token else {}
        process = self.process = RuntimeProcess(
            [str(self._settings.python), "-c", _DOWNLOAD, repository, revision], own, name="download"
        )
        try:
            self._wait(process, lambda: process.exit_code is not None, f"downloading {repository}")
        finally:
            process.kill()
        if process.exit_code != 0:
            raise cause(process.last_lines(), model=repository, what=f"{repository} could not be downloaded")

    # --- until it answers

    def _wait(self, process: RuntimeProcess, done: Callable[[], bool], what: str) -> None:
        begun = time.monotonic()
        told_at = 0.0
        while not done():
            now = time.monotonic()
            if now - told_at >= _TELL_S:
                told_at = now
                self._tell(f"{what}, {now - begun:.0f} s so far; last said: {process.last_line or 'nothing'}")
            if self._stopped.wait(_LOOK_S):
                raise StartCancelled

    def _wait_until_healthy(self, process: RuntimeProcess, client: SglangClient, begun: float) -> None:
        def healthy() -> bool:
            if process.exit_code is not None:
                what = f"SGLang did not start ({ended_how(process)})"
                raise cause(process.last_lines(), model=self._settings.model, what=what)
            if time.monotonic() - begun > self._settings.start_timeout_s:
                raise RuntimeUnavailable(
                    f"SGLang did not start within {self._settings.start_timeout_s:g} s: {process.last_line}"
                )
            try:
                return client.call("GET", "/health", deadline=Deadline.after(_CALL_S)).status == 200
            except (RuntimeUnavailable, RuntimeFault, JudgeTimeout):
                return False

        self._wait(process, healthy, "SGLang starts (it may take minutes)")

    # --- whether it is what was asked for

    def _serving(
        self,
        process: RuntimeProcess,
        client: SglangClient,
        model_weights: Weights,
        *,
        digest: str,
        key: str,
        traits: versions.Traits,
    ) -> Serving:
        settings = self._judge.model_copy(
            update={
                "url": client.url,
                "api_key": SecretStr(key),
                "weights_sha256": digest,
                "model": self._judge.model or model_weights.name,
            }
        )
        canary = Canary(client, timeout_s=self._settings.canary_timeout_s)
        return Serving(process, SglangJudge(settings), canary, traits)

    def _prove(self, serving: Serving, client: SglangClient) -> None:
        """Raises BadSetting for another model than was asked for, RuntimeUnavailable where images fail."""
        self._tell("waiting for the answer to a first image")
        if problem := serving.canary.problem(timeout_s=self._settings.first_answer_s):
            if (code := serving.process.exit_code) is not None:
                what = f"SGLang ended at its first image (exit code {code})"
                raise cause(serving.process.last_lines(), model=self._settings.model, what=what)
            raise RuntimeUnavailable(f"SGLang answers no image: {problem}")
        serving.asked.check()
        if (
            serving.asked.server_version != serving.traits.version
        ):  # it was not known before, or not all of it
            serving.traits = versions.traits_of(serving.asked.server_version or "unknown")
        if serving.traits.needs_freeze:
            for path in AFTER_START:
                client.call("POST", path, b"{}", deadline=Deadline.after(_CALL_S))
        self._compare_canaries(serving)

    def _compare_canaries(self, serving: Serving) -> None:
        if self._settings.canary_set is None:
            return
        self._tell("comparing the canary set")
        known = canary_set.read(self._settings.canary_set)
        share = canary_set.agreement(serving.asked, known, timeout_s=self._settings.first_answer_s)
        log.info("canaries_compared", agreement=round(share, 3), images=len(known))
        if share < self._settings.canary_agreement:
            raise BadSetting(
                f"{self._settings.model} agrees with {share:.0%} of the canary set, "
                f"and {self._settings.canary_agreement:.0%} are needed: these are not the weights that were asked for"
            )


def ended_how(process: RuntimeProcess) -> str:
    code = process.exit_code
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
