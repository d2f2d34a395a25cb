"""Structured logs: constant event names with fields, as JSON lines or in a terminal's colours, on stderr."""

import logging
import sys
import warnings
from typing import TextIO

import structlog

from moderation.redaction import redact_event
from moderation.settings import LogSettings

_log = structlog.get_logger(__name__)


def configure_logging(settings: LogSettings | None = None) -> None:
    """Send our own and the libraries' records to stderr in one form."""
    settings = settings or LogSettings()
    as_json = settings.style == "json" or (settings.style == "auto" and not sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact_event,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
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
                renderer,
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
