"""A scripted SGLang: the real protocol over real HTTP on 127.0.0.1, with answers and faults as a script says.

    with ScriptedServer() as server:
        server.script(default={"kind": "verdict", "rating": "Unsafe", "category": "O4: Nudity Content"},
                      rules=[{"when": {"nth": 2}, "do": {"kind": "reset"}}])
        ... server.url ... server.requests ...

As a program: python -m tests.support.sglang_server --port N [--script FILE] [--start-delay-s S]
It prints its URL once it listens, and ends on SIGTERM. A running server takes POST /_script (a whole script),
POST /_reset, GET /_requests, GET /_stats, POST /_down {"for_s": 2} (drops every connection, stops listening
for that long). What it can do is in sglang_script.Do and .When; errors and spoiled answers in sglang_answers.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.support.http_wire import HttpListener
from tests.support.sglang_requests import Recorded
from tests.support.sglang_runtime import ScriptedRuntime
from tests.support.sglang_script import Rule, Script

T = TypeVar("T")


class ScriptedServer:
    """The server on a thread of its own. Every method may be called from any thread.

    url: base address, such as http://127.0.0.1:34567. The port stays the same over stop_listening and listen.
    """

    def __init__(self, script: Script | dict[str, Any] | None = None, *, port: int = 0) -> None:
        self.runtime = ScriptedRuntime(Script.model_validate(script or {}))
        self._wanted_port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-sglang", daemon=True)
        self._listener: HttpListener | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> Self:
        self._listener = HttpListener(
            self.runtime.handle,
            port=self._wanted_port,
            keep_alive_s=lambda: self.runtime.player.script.keep_alive_s,
        )
        self.runtime.attach(self._listener)
        self._thread.start()
        self._call(self._listener.listen())
        return self

    def close(self) -> None:
        """Stop, drop every connection, end the thread. May be called twice."""
        if not self._thread.is_alive():
            return
        self._call(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    @property
    def url(self) -> str:
        assert self._listener is not None, "not started"
        return f"http://127.0.0.1:{self._listener.port}"

    @property
    def requests(self) -> tuple[Recorded, ...]:
        """Every /generate request since the last reset, in the order of arrival."""
        return tuple(self.runtime.requests)

    @property
    def calls(self) -> tuple[str, ...]:
        """Every path asked for since the last reset, in the order of arrival; admin paths are left out."""
        return tuple(self.runtime.calls)

    @property
    def aborts(self) -> tuple[str, ...]:
        """The rids given to /abort_request since the last reset."""
        return tuple(self.runtime.aborts)

    @property
    def connections(self) -> int:
        """How many connections were accepted since the start."""
        assert self._listener is not None, "not started"
        return self._listener.accepted

    @property
    def open_connections(self) -> int:
        assert self._listener is not None, "not started"
        return self._listener.open_count

    def script(
        self,
        rules: list[Rule | dict[str, Any]] | None = None,
        *,
        default: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Replace the whole script, at once for every request that arrives from now on."""
        given = dict(options)
        if rules is not None:
            given["rules"] = [r.model_dump() if isinstance(r, Rule) else r for r in rules]
        if default is not None:
            given["default"] = default
        script = Script.model_validate(given)
        self._call(self._play(script))

    def reset(self) -> None:
        """Forget the requests and the prefix cache, and count from 1 again; the script stays."""
        self._call(self._forget())

    def stop_listening(self) -> None:
        """Refuse connections and drop those that are open, as a dead server does."""
        assert self._listener is not None, "not started"
        self._call(self._listener.stop(hold=True))

    def listen(self) -> None:
        """Listen again on the same port."""
        assert self._listener is not None, "not started"
        self._call(self._listener.listen())

    def wait_until(self, condition: Callable[["ScriptedServer"], bool], *, timeout_s: float = 10.0) -> None:
        """Return once the condition holds, which is tried after every event. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        changed = self.runtime.changed
        with changed:
            while not condition(self):
                left = deadline - time.monotonic()
                if left <= 0 or not changed.wait(left):
                    raise TimeoutError(f"the condition did not hold within {timeout_s} s")

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _play(self, script: Script) -> None:
        self.runtime.play(script)

    async def _forget(self) -> None:
        self.runtime.reset()

    async def _shut(self) -> None:
        assert self._listener is not None
        await self._listener.stop()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def _serve(port: int, script: Script, start_delay_s: float) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), start_delay_s)
    if stop.is_set():
        return
    runtime = ScriptedRuntime(script, may_exit=True)
    listener = HttpListener(
        runtime.handle, port=port, keep_alive_s=lambda: runtime.player.script.keep_alive_s
    )
    runtime.attach(listener)
    await listener.listen()
    sys.stdout.write(f"http://127.0.0.1:{listener.port}\n")
    sys.stdout.flush()
    await stop.wait()
    await listener.stop()


def main(arguments: list[str] | None = None) -> None:
    """Unknown arguments are ignored, so that a supervisor can start this in place of sglang.launch_server."""
    parser = argparse.ArgumentParser(prog="tests.support.sglang_server")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", type=Path)
    parser.add_argument("--start-delay-s", type=float, default=0.0)
    given, _ = parser.parse_known_args(arguments)
    script = Script.model_validate(json.loads(given.script.read_text()) if given.script else {})
    asyncio.run(_serve(given.port, script, given.start_delay_s))


if __name__ == "__main__":
    main()
