"""Structured logs: constant event names with fields, as JSON lines or in a terminal's colours, on stderr.

structlog and its settings are loaded with the first event: most commands log nothing, and would start a fifth slower.
"""

import logging
import sys
import warnings
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from moderation.settings import LogSettings

_when_used = False  # whether the first event configures what it is written by


class Logger:
    """structlog's logger of this name, loaded with its first event."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._logger: Any = None

    def __getattr__(self, method: str) -> Any:
        if self._logger is None:
            import structlog

            if _when_used:
                configure_logging()
            self._logger = structlog.get_logger(self._name)  # noqa: TID251 - this is what the others use
        return getattr(self._logger, method)


def get_logger(name: str) -> Logger:
    """In place of structlog's own, which would load it."""
    return Logger(name)


_log = get_logger(__name__)


class _FirstRecord(logging.Handler):
    """Takes a library's first record, and leaves the others to what configure_logging puts in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        configure_logging()
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)


def configure_when_used() -> None:
    """As configure_logging, but with the first event, ours or a library's."""
    global _when_used
    _when_used = True
    root = logging.getLogger()
    root.handlers = [_FirstRecord()]
    root.setLevel(logging.INFO)
    warnings.showwarning = _warned


def configure_logging(settings: "LogSettings | None" = None) -> None:
    """Send our own and the libraries' records to stderr in one form."""
    global _when_used
    import structlog

    from moderation.redaction import redact_event
    from moderation.safe_text import for_terminal
    from moderation.settings import LogSettings

    _when_used = False
    settings = settings or LogSettings()
    as_json = settings.style == "json" or (settings.style == "auto" and not sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact_event,
    ]

    def visible(_logger: object, _method: str, event: "MutableMapping[str, Any]") -> "Mapping[str, Any]":
        """What others wrote, so that it commands no terminal; JSON escapes it by itself."""
        for key, value in event.items():
            if isinstance(value, str):
                event[key] = for_terminal(value, lines=True)
        return event

    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer()] if as_json else [visible, structlog.dev.ConsoleRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                *renderers,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    # httpx and botocore write whole URLs, signatures included, at info and debug.
    for noisy in ("httpx", "httpcore", "botocore", "boto3", "urllib3", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    warnings.showwarning = _warned
    for chatty in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(chatty).setLevel(logging.WARNING)  # one line an item is ours to write


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A library's warning in the form of the rest: Python writes lines of text, which no reader of JSON expects."""
    del file, line
    at = f"{filename}:{lineno}"
    _log.warning("python_warning", category=category.__name__, message=str(message).strip(), at=at)
