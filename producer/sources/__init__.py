"""Sources of `vetline enqueue`: a file for each kind, chosen by `open_source`."""

from producer.sources.columns import Columns
from producer.sources.detect import FileFormat, SourceOptions, open_source
from producer.sources.item import Cursor, Item, Reject, Source, SourceStep
from producer.sources.text import STDIN

__all__ = [
    "STDIN",
    "Columns",
    "Cursor",
    "FileFormat",
    "Item",
    "SourceOptions",
    "Reject",
    "Source",
    "SourceStep",
    "open_source",
]
