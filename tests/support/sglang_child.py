"""A scripted SGLang in place of `python -m sglang.launch_server`, for a supervisor that starts it as its child.

python -m tests.support.sglang_child --plan FILE [launch_server's flags]

FILE holds a list of lives, one for each start in turn, the last one for all further starts (see Life). Each start adds
a line to FILE.starts: its pid, its port, the pids that it started, its arguments. Only who has the key is served.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from tests.support.http_wire import HttpAnswer, HttpListener, HttpRequest
from tests.support.sglang_runtime import ScriptedRuntime
from tests.support.sglang_script import Script

_STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


class Life(BaseModel):
    """How one start goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    late_s: float = 0.0  # before it listens
    says: str = ""  # on its standard error, first of all
    dies: int | None = None  # exit code, once it has said so
    script: Script = Field(default_factory=Script)
    ignores_term: bool = False
    leaves_child: bool = (
        False  # it holds the listening socket and heeds no SIGTERM, as SGLang's image workers do
    )
    leaks_mib: int = 0  # with each image


class Start(BaseModel):
    """A line of FILE.starts."""

    model_config = ConfigDict(frozen=True)

    pid: int
    port: int
    children: tuple[int, ...]
    arguments: tuple[str, ...]


def starts(plan: Path) -> list[Start]:
    """Those so far, in order."""
    path = _starts_of(plan)
    return (
        [Start.model_validate_json(line) for line in path.read_text().splitlines()] if path.exists() else []
    )


def _starts_of(plan: Path) -> Path:
    return plan.with_suffix(".starts")


async def _serve(life: Life, plan: Path, given: argparse.Namespace) -> None:
    stop = asyncio.Event()
    act = (lambda: None) if life.ignores_term else stop.set
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, act)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), life.late_s)
    if stop.is_set():
        return
    runtime = ScriptedRuntime(life.script, may_exit=True)
    leaked: list[bytes] = []

    async def handle(request: HttpRequest) -> HttpAnswer:
        if request.headers.get("authorization") != f"Bearer {given.api_key}" and request.path != "/health":
            return HttpAnswer(401, b'{"error": "Unauthorized"}')
        if life.leaks_mib and request.path == "/generate":
            leaked.append(b"\1" * (life.leaks_mib << 20))
        return await runtime.handle(request)

    listener = HttpListener(handle, port=given.port, keep_alive_s=lambda: runtime.player.script.keep_alive_s)
    runtime.attach(listener)
    await listener.listen()
    _note(plan, given, _children(life, listener))
    await stop.wait()
    await listener.stop()


def _children(life: Life, listener: HttpListener) -> tuple[int, ...]:
    if not life.leaves_child:
        return ()
    child = subprocess.Popen([sys.executable, "-c", _STUBBORN], pass_fds=[listener.fileno()])
    return (child.pid,)


def _note(plan: Path, given: argparse.Namespace, children: tuple[int, ...] = ()) -> None:
    start = Start(pid=os.getpid(), port=given.port, children=children, arguments=tuple(sys.argv[1:]))
    with _starts_of(plan).open("a") as out:
        out.write(start.model_dump_json() + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--config", type=Path, required=True)
    given, _ = parser.parse_known_args()
    given.api_key = json.loads(given.config.read_text())["api-key"]
    sys.stderr.write(f"server_args=ServerArgs(api_key={given.api_key!r})\n")  # as SGLang does
    lives: list[Life] = TypeAdapter(list[Life]).validate_json(given.plan.read_text())
    life = lives[min(len(starts(given.plan)), len(lives) - 1)]
    if life.says:
        sys.stderr.write(life.says + "\n")
    if life.dies is not None:
        _note(given.plan, given)
        sys.exit(life.dies)
    asyncio.run(_serve(life, given.plan, given))


if __name__ == "__main__":
    main()
