"""Traces from submit to record, where OTEL_EXPORTER_OTLP_ENDPOINT says that somebody collects them.

An assessment's trace needs no header that travels with it: its id, a UUID, is the trace's id, and the last eight
bytes of it are the id of the span `submit`. So a row that waited a week in Postgres, or rang from the sweeper, still
joins its trace, and whoever has the id of an assessment has its trace: the id without its dashes.

Needs the extra `tracing`. Off, a span costs a look at one variable.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from moderation.assessment import Ticket
from moderation.log import get_logger

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import SpanContext

log = get_logger(__name__)


class TracingSettings(BaseSettings):
    """OpenTelemetry's own variables hold for the rest: headers, batches, certificates."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    endpoint: str | None = Field(
        default=None,
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    )
    # The share of assessments that are traced, the same ones in every process: it goes by the id.
    ratio: float = Field(default=1.0, ge=0, le=1, validation_alias="VETLINE_TRACING_RATIO")
    # How long a collector that is away may hold up the end of a process; OpenTelemetry's default is 10.
    timeout_s: float = Field(default=2, gt=0, validation_alias="OTEL_EXPORTER_OTLP_TIMEOUT")
    service: str = Field(default="vetline", validation_alias="OTEL_SERVICE_NAME")


_FLUSH_MS = 2000  # a collector that is away must not hold up a worker that leaves
_RANDOM_BITS = 56  # of a UUIDv7's end, below its variant

_provider: "TracerProvider | None" = None
_ratio = 1.0
_id_of_next: ContextVar[int | None] = ContextVar("vetline_span_id", default=None)


def start(role: str) -> None:
    """Trace from now on, if the environment says where to. role: producer or worker. Safe to repeat."""
    global _provider, _ratio  # one for a process, as OpenTelemetry's own
    settings = TracingSettings()
    if settings.endpoint and _provider is None:
        _provider = _open(settings, role)
        _ratio = settings.ratio


def is_on() -> bool:
    """Whether this process traces anything."""
    return _provider is not None


def flush() -> None:
    """Send what is not sent yet; at the end of the process that happens by itself."""
    if _provider is not None:
        _provider.force_flush(_FLUSH_MS)


def submitted(tickets: Sequence[Ticket], *, started_ns: int) -> None:
    """The span `submit` of each new assessment, from started_ns (Unix time) until now."""
    if _provider is None:
        return
    from opentelemetry.trace import Link, get_current_span

    callers = get_current_span().get_span_context()  # of the service that submits, if it traces
    links = [Link(callers)] if callers.is_valid else None
    for ticket in tickets:
        if not ticket.known and _is_traced(ticket.id):
            _submit_span(ticket, started_ns, links)


def _submit_span(ticket: Ticket, started_ns: int, links: Any) -> None:
    from opentelemetry.context import Context

    token = _id_of_next.set(ticket.id.int)
    try:
        tracer = _tracer()
        attributes = {"vetline.assessment": str(ticket.id), "vetline.policy": ticket.policy}
        tracer.start_span(
            "submit", context=Context(), start_time=started_ns, links=links, attributes=attributes
        ).end()
    finally:
        _id_of_next.reset(token)


def attempt(id_: UUID, **attributes: str | int) -> AbstractContextManager[None]:
    """The span of one attempt, under the assessment's submit; the steps in the block are spans below it."""
    return _attempt(id_, attributes) if _provider is not None and _is_traced(id_) else nullcontext()


def span(name: str) -> AbstractContextManager[None]:
    """The span of a step, below the attempt of this thread."""
    return nullcontext() if _provider is None else _span(name)


@contextmanager
def _attempt(id_: UUID, attributes: dict[str, str | int]) -> Iterator[None]:
    from opentelemetry import trace

    named = {f"vetline.{name}": value for name, value in attributes.items()}
    above = trace.set_span_in_context(trace.NonRecordingSpan(_submit_context(id_)))
    with _tracer().start_as_current_span("attempt", context=above, attributes=named):
        yield


@contextmanager
def _span(name: str) -> Iterator[None]:
    if not _in_attempt():
        yield
        return
    with _tracer().start_as_current_span(name):
        yield


def _in_attempt() -> bool:
    """Whether this thread is at an attempt that is traced."""
    from opentelemetry.trace import get_current_span

    return bool(get_current_span().get_span_context().is_valid)


def _is_traced(id_: UUID) -> bool:
    """By the id alone, so that all processes choose the same."""
    return id_.int % (1 << _RANDOM_BITS) < _ratio * (1 << _RANDOM_BITS)


def claimed(seconds: float) -> None:
    """The span `claim`, which ended before the attempt could begin. Inside the attempt's block."""
    if _provider is not None and _in_attempt():
        now = time.time_ns()
        _tracer().start_span("claim", start_time=now - int(seconds * 1e9)).end(now)


def failed(code: str) -> None:
    """Mark the attempt of this thread as failed with this code."""
    if _provider is not None:
        from opentelemetry.trace import Status, StatusCode, get_current_span

        get_current_span().set_status(Status(StatusCode.ERROR, code))


def _submit_context(id_: UUID) -> "SpanContext":
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(id_.int, _span_id(id_.int), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _span_id(trace_id: int) -> int:
    return trace_id & (2**64 - 1)


def _tracer() -> Any:
    assert _provider is not None
    return _provider.get_tracer("vetline")


def _open(settings: TracingSettings, role: str) -> "TracerProvider | None":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    except ImportError:
        log.warning("tracing_not_installed", install="pip install 'vetline[tracing]'")
        return None
    provider = TracerProvider(
        sampler=ALWAYS_ON,  # we chose already; its own choice by id goes by bits that a UUID has fixed
        resource=Resource.create({"service.name": f"{settings.service}-{role}"}),
        id_generator=_ids(),
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=settings.timeout_s)))
    return provider


@cache
def _ids() -> Any:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        """Random ones, but for the span `submit`, whose ids are the assessment's."""

        def generate_trace_id(self) -> int:
            return _id_of_next.get() or int(super().generate_trace_id())

        def generate_span_id(self) -> int:
            wanted = _id_of_next.get()
            return _span_id(wanted) if wanted else int(super().generate_span_id())

    return Ids()
