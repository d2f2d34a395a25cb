"""What `vetline enqueue` reads: one file here for each kind of source, and `open_source` chooses among them."""

from producer.sources.choosing import Form, Reading, open_source
from producer.sources.columns import Columns
from producer.sources.item import Cursor, Item, Refusal, Source, Step
from producer.sources.text import STDIN

__all__ = [
    "STDIN",
    "Columns",
    "Cursor",
    "Form",
    "Item",
    "Reading",
    "Refusal",
    "Source",
    "Step",
    "open_source",
]
