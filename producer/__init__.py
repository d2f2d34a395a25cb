"""Submit images for judging: `from producer import Client`, or `AsyncClient` where there is an event loop."""

from moderation.assessment import Priority, Submission, Ticket
from moderation.errors import InvalidSubmission, LedgerUnavailable, QueueFull, UnknownPolicy
from producer.async_client import AsyncClient
from producer.client import Client, Submitted

__all__ = [
    "AsyncClient",
    "Client",
    "InvalidSubmission",
    "LedgerUnavailable",
    "Priority",
    "QueueFull",
    "Submission",
    "Submitted",
    "Ticket",
    "UnknownPolicy",
]
