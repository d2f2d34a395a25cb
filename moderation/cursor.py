"""A place in the feed of verdicts. To whoever keeps one it is a text without meaning."""

import base64
import binascii
from dataclasses import dataclass
from typing import Self

from moderation.errors import InvalidCursor

_FORM = "v1"
_MAX_XID = 2**64 - 1
_MAX_SEQ = 2**63 - 1
_MAX_EPOCH = 2**31 - 1


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """Behind all verdicts up to this one, in the feed's order.

    epoch: grows where the database was restored into another cluster, whose transaction ids begin anew.
    xid: the transaction that recorded it. seq: its number, which tells apart what one transaction recorded.
    """

    epoch: int
    xid: int
    seq: int

    def __str__(self) -> str:
        plain = f"{_FORM}.{self.epoch}.{self.xid}.{self.seq}"
        return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidCursor for anything that `str` of a cursor did not give."""
        try:
            plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
            _, *numbers = plain.split(".")
            epoch, xid, seq = (int(number) for number in numbers)
        except (binascii.Error, UnicodeError, ValueError):
            raise InvalidCursor(f"{text[:80]!r} is not a cursor of the feed") from None
        cursor = cls(epoch, xid, seq)
        if str(cursor) != text or not (epoch <= _MAX_EPOCH and xid <= _MAX_XID and seq <= _MAX_SEQ):
            raise InvalidCursor(f"{text[:80]!r} is not a cursor of the feed")
        return cursor


START = Cursor(1, 0, 0)  # before the first verdict
NOW = "now"  # for `after`: behind everything that is there
