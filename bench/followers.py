"""Readers that follow a run from its first verdict, and what each was given against the table at the end."""

import threading
import time
from typing import Self

from sqlalchemy import Engine

from consumer.feed import Feed, FeedSettings
from moderation.cursor import START
from moderation.ledger import webhooks
from moderation.ledger.feed import EVERYTHING, end
from moderation.webhook import new_secret
from tests.support.given_out import Comparison, compare, recorded_in
from tests.support.receiver import Receiver

# A little below a power of ten, where ids as texts would sort anew.
NEXT_ID = 9_500
# A receiver on this machine, and a sender whose death is noticed within a run.
WEBHOOK_ENV = {
    "VETLINE_WEBHOOK_ALLOW_HOSTS": "127.0.0.0/8",
    "VETLINE_WEBHOOK_ALLOW_HTTP": "true",
    "VETLINE_WEBHOOK_TOTAL_TIMEOUT_S": "4",
    "VETLINE_WEBHOOK_LEASE_S": "6",
    "VETLINE_WEBHOOK_RETRY_BASE_S": "0.2",
    "VETLINE_WEBHOOK_RETRY_CAP_S": "2",
}
_LOOK_EVERY_S = 0.1


class Follower:
    """A thread that reads the feed, through outages of Postgres. consumer: the name that it reads under, if any."""

    def __init__(self, database_url: str, *, consumer: str | None = None) -> None:
        self.given: list[str] = []
        self._feed = Feed(database_url=database_url, consumer=consumer, settings=FeedSettings(batch_size=50))
        self._thread = threading.Thread(target=self._follow, name="follower")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.stop()
        self._thread.join()
        self._feed.close()

    def read_out(self, engine: Engine, *, limit_s: float) -> None:
        """Wait until it has come to where the feed ends now; a reader that does not is told by what it lacks."""
        until, last = end(engine), time.monotonic() + limit_s
        while self._feed.cursor < until and time.monotonic() < last:
            time.sleep(_LOOK_EVERY_S)

    def _follow(self) -> None:
        for batch in self._feed.batches():
            self.given += [str(verdict.assessment_id) for verdict in batch]


class Endpoint:
    """A webhook and its receiver. Whoever sends to it is not part of this."""

    name = "followed"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._receiver = Receiver(secret=new_secret())

    def __enter__(self) -> Self:
        self._receiver.__enter__()
        self.id = webhooks.add_webhook(
            self._engine,
            self.name,
            self._receiver.url(),
            secret=self._receiver.secret,
            wanted=EVERYTHING,
            start=START,
        ).id
        return self

    def __exit__(self, *_: object) -> None:
        self._receiver.__exit__()

    @property
    def given(self) -> list[str]:
        return [asked["data"]["assessment_id"] for asked in self._receiver.asked if "data" in asked]

    def read_out(self, *, limit_s: float) -> None:
        """Wait until the ledger says that nothing is left to send."""
        last = time.monotonic() + limit_s
        while webhooks.webhooks(self._engine)[0]["behind_s"] is not None and time.monotonic() < last:
            time.sleep(_LOOK_EVERY_S)


def compared(engine: Engine, given: dict[str, list[str]]) -> dict[str, Comparison]:
    """Each reader's ids, in the order in which it got them, against the verdict table."""
    table = [row.id for row in recorded_in(engine)]
    return {reader: compare(table, ids) for reader, ids in given.items()}


def agree(found: dict[str, Comparison]) -> bool:
    """Whether every reader was given the whole table in order. The plain feed gives nothing twice."""
    return all(one.exact if reader == "feed" else one.complete for reader, one in found.items())
