"""Submits images for judging. Other people's code has `from vetline import Client`, or `AsyncClient` for asyncio."""

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
