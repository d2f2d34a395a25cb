"""Vetline for other people's code: submit images, and read their verdicts.

    from vetline import AsyncClient, Client, Feed

Each name loads what it needs when it is first used, and nothing before. See docs/producers.md and docs/consumers.md.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumer.feed import Feed
    from producer import AsyncClient, Client
else:
    from importlib import import_module

    _HOMES = {"AsyncClient": "producer", "Client": "producer", "Feed": "consumer.feed"}

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value


__all__ = ["AsyncClient", "Client", "Feed"]


def __dir__() -> list[str]:
    return sorted(__all__)
