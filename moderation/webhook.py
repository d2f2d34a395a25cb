"""What is sent to an endpoint, and how it is signed: the Standard Webhooks scheme (standardwebhooks.com)."""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from pydantic_core import to_json

from moderation.errors import InvalidWebhook
from moderation.published import PublishedVerdict

TASK = "vetline.deliver"
RECORDED = "verdict.recorded"
TEST = "webhook.test"
_PREFIX = "whsec_"
_SECRET_BYTES = 32  # the scheme asks for 24 to 64


@dataclass(frozen=True, slots=True)
class WebhookMessage:
    """One event for one endpoint. id: the same however often it is sent, so that a receiver can tell."""

    id: str
    body: bytes

    def headers(self, keys: Sequence[str], at: datetime) -> dict[str, str]:
        """Signed with every valid secret: a receiver that knows one of them is satisfied."""
        seconds = int(at.timestamp())
        return {
            "Content-Type": "application/json",
            "webhook-id": self.id,
            "webhook-timestamp": str(seconds),
            "webhook-signature": " ".join(sign(key, self.id, seconds, self.body) for key in keys),
        }


def new_secret() -> str:
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def sign(secret: str, id_: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the HMAC-SHA256 of id, timestamp (seconds) and body, in base64. Raises InvalidWebhook."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise InvalidWebhook("a secret is whsec_ and base64") from None
    digest = hmac.new(key, f"{id_}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def verdict_message(webhook: UUID, verdict: PublishedVerdict) -> WebhookMessage:
    """That a verdict was recorded. The id is the same for this endpoint and this verdict."""
    content = {"type": RECORDED, "timestamp": verdict.recorded_at, "data": verdict.plain()}
    return WebhookMessage(f"msg_{webhook.hex}_{verdict.assessment_id.hex}", to_json(content))


def probe_message(name: str) -> WebhookMessage:
    """One that says nothing but that endpoint and secret fit."""
    now = datetime.now(UTC)
    content = {"type": TEST, "timestamp": now, "data": {"webhook": name}}
    return WebhookMessage(f"msg_test_{secrets.token_hex(8)}", to_json(content))
