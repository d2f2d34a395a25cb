"""The feed of verdicts, for whoever comes after: every verdict, in order, none skipped.

    from moderation.feed import Feed

    with Feed(consumer="takedown", rating="Unsafe") as feed:
        for verdict in feed:
            take_down(verdict.key)

`Feed` for threads, `AsyncFeed` for asyncio, from one core. See docs/consumers.md.
"""

from moderation.cursor import Cursor
from moderation.errors import ConsumerTaken, InvalidConsumer, InvalidCursor
from moderation.feed.asynchronous import AsyncFeed
from moderation.feed.reader import NOW, Feed
from moderation.feed.settings import FeedSettings
from moderation.published import Published

__all__ = [
    "AsyncFeed",
    "ConsumerTaken",
    "Cursor",
    "Feed",
    "FeedSettings",
    "InvalidConsumer",
    "InvalidCursor",
    "NOW",
    "Published",
]
