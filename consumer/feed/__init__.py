"""The feed of verdicts, for whoever comes after: every verdict, in order, none skipped.

    from vetline import Feed

    with Feed(consumer="takedown", rating="Unsafe") as feed:
        for verdict in feed:
            take_down(verdict.key)

`Feed` for threads, `AsyncFeed` for asyncio, from one core. See docs/consumers.md.
"""

from consumer.feed.asynchronous import AsyncFeed
from consumer.feed.reader import Feed
from consumer.feed.settings import FeedSettings
from moderation.cursor import NOW, Cursor
from moderation.errors import ConsumerTaken, InvalidConsumer, InvalidCursor
from moderation.published import PublishedVerdict

__all__ = [
    "AsyncFeed",
    "ConsumerTaken",
    "Cursor",
    "Feed",
    "FeedSettings",
    "InvalidConsumer",
    "InvalidCursor",
    "NOW",
    "PublishedVerdict",
]
