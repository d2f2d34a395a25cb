"""What Flower's pages show of a task, by its own hook `format_task`."""

import ast
from typing import Any

from moderation.redaction import redact_text
from moderation.safe_text import for_terminal
from worker.events.outcome import read_not_judged

# What came of it, the policy (args) and the image (kwargs), before anything else.
COLUMNS = "uuid,state,args,kwargs,result,received,runtime,worker"
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
    kwargs = _mapping(task.kwargs)
    if "uri" in kwargs and "policy" in kwargs:
        task.args, task.kwargs = kwargs["policy"], _short(str(kwargs["uri"]))
    result = _mapping(task.result)
    task.assessment = result.get("assessment", task.uuid)
    if "outcome" in result:
        task.result = result["outcome"]
    elif not_judged := read_not_judged(task.exception or ""):
        task.result, task.assessment = not_judged
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
