"""The command line and the environment that a server is started with."""

import json
import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from moderation.services.child import LOOPBACK
from worker.runtime.plugin import launch
from worker.runtime.settings import RuntimeSettings
from worker.runtime.versions import Traits
from worker.runtime.weights import Weights

_PROJECT = Path(__file__).parents[2]  # the folder that holds `worker`, for the plugin
_OWN = (
    "DATABASE_URL",
    "REDIS_URL",
    "CELERY_BROKER_URL",
    "AWS_",
    "VETLINE_SGLANG_",
    "VETLINE_RUNTIME_",
    "HF_TOKEN",
)


def command(
    settings: RuntimeSettings, weights: Weights, traits: Traits, *, port: int, key_file: Path
) -> list[str]:
    """On loopback alone, for whoever has the key: in a file, as anybody on the machine can read arguments."""
    return [
        *settings.argv,
        "--model-path", str(weights.folder),
        "--host", LOOPBACK,
        "--port", str(port),
        "--config", str(key_file),
        "--chat-template", "chatml-llava",  # else the chat endpoint, and its warm-up, drop the image in silence
        *_device(settings, traits),
        # After those of plugin/launch.py, so that what is set here wins.
        "--context-length", str(settings.context_tokens),
        "--max-prefill-tokens", str(settings.prefill_tokens),
        "--max-queued-requests", str(settings.queued_requests),
        "--mem-fraction-static", str(settings.memory_fraction),
        "--watchdog-timeout", str(settings.watchdog_s),
        "--limit-mm-data-per-request", '{"image": 1}',
        "--skip-server-warmup",  # our canary asks for an image at once, and compiles the same kernels
        "--sampling-defaults", "openai",  # not those of the checkpoint's generation_config.json
        "--log-level", "info",  # at warning nothing tells how far a start has come
        "--log-level-http", "warning",  # no line for each request
        *_tower(settings),
        *shlex.split(settings.flags),
    ]  # fmt: skip


@contextmanager
def key_file(api_key: str) -> Iterator[Path]:
    """A file that only we can read, for --config, for as long as the server may read it. JSON is YAML."""
    handle, name = tempfile.mkstemp(prefix="vetline-", suffix=".yaml")
    try:
        with os.fdopen(handle, "w") as out:
            json.dump({"api-key": api_key}, out)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _device(settings: RuntimeSettings, traits: Traits) -> tuple[str, ...]:
    if settings.device == "cpu":
        return ("--device", "cpu", "--max-running-requests", str(settings.running_requests))
    return launch.flags(running=settings.running_requests, graph_flag=traits.graph_flag)


def _tower(settings: RuntimeSettings) -> tuple[str, ...]:
    if settings.tower is None:
        return ()
    return ("--json-model-override-args", json.dumps({"mm_vision_tower": settings.tower}))


def environment(settings: RuntimeSettings, surrounding: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Ours without what SGLang has no use for: it needs no way into the ledger, and no credentials."""
    kept = {name: value for name, value in surrounding.items() if not name.startswith(_OWN)}
    ours = {
        "REQUEST_TIMEOUT": str(settings.image_timeout_s),
        "SGLANG_RETURN_ORIGINAL_LOGPROB": "1",  # logprobs before the temperature: P(unsafe) needs no correction
        "SGLANG_HEALTH_CHECK_TIMEOUT": "20",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(_PROJECT), kept.get("PYTHONPATH", "")))),
    }
    plugin = launch.ENVIRONMENT if settings.plugin else _without_plugin()
    theirs = {name: value for name, value in kept.items() if name.startswith("SGLANG_")}  # set on purpose
    return {**kept, **plugin, **ours, **theirs, "HF_HUB_OFFLINE": "1"}


def _without_plugin() -> dict[str, str]:
    return {name: value for name, value in launch.ENVIRONMENT.items() if "_EXTERNAL_" not in name}
