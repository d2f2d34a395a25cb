"""The observed child of a trial: reads one suspect a line, walks the path, writes one answer a line.

Ends when its standard input does, so it does not outlive its worker.
"""

import json
import os
import sys
from typing import Any

from moderation.errors import VetlineError
from moderation.log import configure_logging
from moderation.policy import PolicyRevision
from worker.assess import Subject, assess
from worker.clock import Clock
from worker.settings import WorkerSettings
from worker.tools import Tools, make_tools


def main() -> None:
    configure_logging()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not pass for an answer
    tools = make_tools(WorkerSettings.model_validate_json(sys.argv[1]))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line), tools)), file=answers, flush=True)


def _answer(request: dict[str, Any], tools: Tools) -> dict[str, Any]:
    policy = PolicyRevision.model_validate(request["policy"])
    try:
        verdict = assess(Subject(request["uri"]), policy, tools, Clock())
    except VetlineError as error:
        return {"code": error.code, "message": str(error)}
    return {"verdict": verdict.model_dump(mode="json")}


if __name__ == "__main__":
    main()
