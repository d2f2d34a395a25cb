"""What `vetline enqueue` reads: one file here for each kind of source, and `open_source` chooses among them."""

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
