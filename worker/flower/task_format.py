"""What Flower's pages show of a task, by its own hook `format_task`."""

import ast
import re
from typing import Any

from moderation.redaction import redact_text
from moderation.safe_text import for_terminal

# What came of it, the policy (args) and the image (kwargs), before anything else.
COLUMNS = "uuid,state,args,kwargs,result,received,runtime,worker"
_NOT_JUDGED = re.compile(r"NotJudged\('(.*) \(([0-9a-f-]{36})\)'\)")
_LENGTH = 40  # characters of a URI; Flower's column has room for some 45
_TEXTS = ("args", "kwargs", "result", "exception", "traceback")


def format_task(task: Any) -> Any:
    """Short, without secrets, and with the id that `vetline explain` takes.

    task: a copy that Flower made of Celery's `events.state.Task`, to be shown.
    """
    for name in _TEXTS:
        text = getattr(task, name, None)
        if isinstance(text, str):
            setattr(task, name, for_terminal(redact_text(text), lines=True))
    told = _mapping(task.kwargs)
    if "uri" in told and "policy" in told:
        task.args, task.kwargs = told["policy"], _short(str(told["uri"]))
    result = _mapping(task.result)
    task.assessment = result.get("assessment", task.uuid)
    if "outcome" in result:
        task.result = result["outcome"]
    elif found := _NOT_JUDGED.search(task.exception or ""):
        task.result, task.assessment = found.groups()
    return task


def _short(uri: str) -> str:
    """Scheme, host and the end of the path, where the whole would be cut before its end."""
    if len(uri) <= _LENGTH or "://" not in uri:
        return uri
    scheme, _, rest = uri.partition("://")
    host, *path = rest.split("/")
    return f"{scheme}://{host}/…/{'/'.join(path[-2:])[-_LENGTH:]}"


def _mapping(text: Any) -> dict[str, Any]:
    """The dict that this is the repr of; empty for anything else, such as a repr that was cut."""
    try:
        value = ast.literal_eval(text) if isinstance(text, str) else text
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: a stranger's, too deep
        return {}
    return value if isinstance(value, dict) else {}
