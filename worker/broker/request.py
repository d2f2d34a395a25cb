"""Celery's request, with the secrets of URIs taken out of what Flower and logs see."""

from celery.worker.request import Request

from moderation.redaction import redact_text


class RedactedRequest(Request):
    """A message as Flower and logs may see it: whatever client sent it, no URI shows its secrets."""

    @property
    def argsrepr(self) -> str:
        return redact_text(str(super().argsrepr or ""))

    @property
    def kwargsrepr(self) -> str:
        return redact_text(str(super().kwargsrepr or ""))
