"""A message as it came from Redis, for Celery's worker to pass on."""

from celery.worker.request import Request

from moderation.redaction import redact_text


class Shown(Request):
    """A message as Flower and logs may see it: whatever client sent it, no URI shows its secrets."""

    @property
    def argsrepr(self) -> str:
        return redact_text(str(super().argsrepr or ""))

    @property
    def kwargsrepr(self) -> str:
        return redact_text(str(super().kwargsrepr or ""))
