"""data: URIs: the image is in the URI itself."""

import binascii
from base64 import b64decode
from urllib.parse import unquote_to_bytes

from intake.picture import Fetched
from moderation.errors import InvalidUri, TooLarge


class DataSource:
    """Decodes data: URIs up to a bound, in base64 or percent-encoded."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def fetch(self, uri: str) -> Fetched:
        """Raises InvalidUri, TooLarge."""
        head, comma, payload = uri[len("data:") :].partition(",")
        if not comma:
            raise InvalidUri("a data URI without a comma")
        if len(payload) > 3 * self._max_bytes + 4:  # every byte takes three characters at most
            raise TooLarge(f"holds more than {self._max_bytes} bytes")
        kind, *parameters = [part.strip().lower() for part in head.split(";")]
        data = _from_base64(payload) if "base64" in parameters else unquote_to_bytes(payload)
        if len(data) > self._max_bytes:
            raise TooLarge(f"holds more than {self._max_bytes} bytes")
        return Fetched(data=data, declared_type=kind[:200] if kind.isprintable() and kind else None)


def _from_base64(payload: str) -> bytes:
    raw = unquote_to_bytes(payload).translate(None, b" \t\r\n")
    raw = raw.replace(b"-", b"+").replace(b"_", b"/").rstrip(b"=")
    try:
        return b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidUri("the data URI is not base64") from None
