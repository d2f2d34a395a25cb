"""One POST to an endpoint, over the intake's checked network: bounded in time and bytes, no redirects."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import httpcore

from intake.addresses import AddressRules
from intake.budget import Budget
from intake.http import retry_after_s
from intake.pinned_pool import BROKEN, PinnedPool
from intake.resolver import Resolver
from intake.web_uri import WebUri, host_header, parse_web_uri
from moderation.errors import InvalidWebhook, VetlineError
from moderation.webhook import WebhookMessage
from worker.webhooks.settings import WebhookSettings

_GONE = 410
_KEEPALIVE_S = 30.0


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """What came of a delivery. error: None where the endpoint took it. gone: it wants nothing more, ever."""

    error: str | None = None
    retry_after_s: float | None = None
    gone: bool = False


class Poster:
    """Sends to many endpoints at once, over connections that are kept. For many threads."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings
        self._resolver = Resolver(settings.senders)
        self._pool = PinnedPool(
            settings.network,
            AddressRules(settings.allow_hosts),
            self._resolver.resolve,
            max_connections=settings.senders,
            keepalive_s=_KEEPALIVE_S,
        )

    def post(self, url: str, message: WebhookMessage, keys: Sequence[str]) -> DeliveryOutcome:
        """Send once. It counts as taken by a 2xx status in a whole answer; never raises for what an endpoint does."""
        try:
            endpoint = check_url(url, self._settings)
            with self._pool.within(Budget(self._settings.total_timeout_s)):
                return self._send(endpoint, message, keys)
        except VetlineError as error:
            return DeliveryOutcome(str(error))

    def close(self) -> None:
        self._pool.close()
        self._resolver.close()

    def _send(self, endpoint: WebUri, message: WebhookMessage, keys: Sequence[str]) -> DeliveryOutcome:
        try:
            with self._pool.response(self._request(endpoint, message, keys)) as response:
                outcome = _judge(response)
                self._read(response)
                return outcome
        except BROKEN:
            return DeliveryOutcome(f"the connection to {endpoint.host} broke off")

    def _request(self, endpoint: WebUri, message: WebhookMessage, keys: Sequence[str]) -> httpcore.Request:
        headers = message.headers(keys, datetime.now(UTC)) | {
            "Host": host_header(endpoint),
            "User-Agent": "Vetline-Webhook",
            "Accept-Encoding": "identity",
            "Content-Length": str(len(message.body)),
        }
        return httpcore.Request(
            b"POST",
            httpcore.URL(
                scheme=endpoint.scheme, host=endpoint.host, port=endpoint.port, target=endpoint.target
            ),
            headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()],
            content=message.body,
            extensions={"timeout": {"pool": self._settings.total_timeout_s}},
        )

    def _read(self, response: httpcore.Response) -> None:
        """To its end, so that the connection can be used again, or to the bound: what follows is not waited for."""
        count = 0
        for chunk in response.iter_stream():
            count += len(chunk)
            if count > self._settings.max_response_bytes:
                return


def check_url(url: str, settings: WebhookSettings) -> WebUri:
    """Raises InvalidWebhook, InvalidUri; where the host's name leads is checked when it is connected to."""
    endpoint = parse_web_uri(url)
    if endpoint.authorization is not None:
        raise InvalidWebhook("an endpoint's URL holds no user and password: its messages are signed")
    if endpoint.scheme != "https" and not settings.allow_http:
        raise InvalidWebhook("an endpoint's URL is https: set VETLINE_WEBHOOK_ALLOW_HTTP for others")
    return endpoint


def _judge(response: httpcore.Response) -> DeliveryOutcome:
    if 200 <= response.status < 300:
        return DeliveryOutcome()
    headers = {name.lower(): value for name, value in response.headers}
    if 300 <= response.status < 400:
        return DeliveryOutcome(f"answered {response.status}, and redirects are not followed")
    return DeliveryOutcome(
        f"answered {response.status}", retry_after_s=retry_after_s(headers), gone=response.status == _GONE
    )
