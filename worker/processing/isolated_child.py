"""The observed child of an isolated run: reads one suspect a line, walks the path, writes one answer a line.

Ends when its standard input does, also in the middle of an item, so it does not outlive its worker. A supervisor may
send SIGTERM to all of a service's processes at once: it is the worker's to heed, since a death here condemns the item.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

from moderation.errors import VetlineError
from moderation.log import configure_logging
from moderation.policy import PolicyRevision
from worker.processing.assess import LazyImage, assess
from worker.processing.components import Components, make_components
from worker.processing.step_timer import StepTimer
from worker.settings import WorkerSettings


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    configure_logging()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not pass for an answer
    components = make_components(WorkerSettings.model_validate_json(sys.argv[1]))
    print("ready", file=answers, flush=True)
    for line in _requests():
        print(json.dumps(_answer(json.loads(line), components)), file=answers, flush=True)


def _requests() -> Iterator[str]:
    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(lines,), name="requests", daemon=True).start()
    while True:
        yield lines.get()


def _read(lines: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)  # the worker is gone, and nobody wants the answer that is being worked on


def _answer(request: dict[str, Any], components: Components) -> dict[str, Any]:
    policy = PolicyRevision.model_validate(request["policy"])
    try:
        verdict = assess(LazyImage(request["uri"]), policy, components, StepTimer())
    except VetlineError as error:
        return {"code": error.code, "message": str(error)}
    return {"verdict": verdict.model_dump(mode="json")}


if __name__ == "__main__":
    main()
