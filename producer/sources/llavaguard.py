"""LlavaGuard-DS as it is published: id, url, rating, category and policy, as CSV; or its build's JSON, with images.

What people said about an image stands in its metadata as `expected_rating` and `expected_category`, and the text that
they judged it under as `policy_sha256`, so that verdicts can be held against it. It is judged under --policy.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from moderation.errors import BadSource, InvalidSubmission
from producer.sources.columns import Columns
from producer.sources.item import Cursor, Item, Reject, Source, SourceStep
from producer.sources.table import Row, Table
from producer.sources.text import base_of, identity_of

_KEPT = ("id", "expected_rating", "expected_category", "policy_sha256")
_PLACEHOLDER = "<image>"  # stands in the published prompts for the image


def open_llavaguard(name: str) -> Source:
    return LlavaGuardJson(name) if ".json" in name else Table(name, _columns("url"), _labelled)


def _columns(uri: str) -> Columns:
    return Columns(uri=uri, metadata=_KEPT)


def _labelled(row: Row) -> Row:
    return _with_labels(row, rating=row.get("rating"), prompt=row.get("policy"))


def _with_labels(row: dict[str, Any], *, rating: Any, prompt: Any) -> dict[str, Any]:
    text = str(prompt or "").replace(_PLACEHOLDER, "").strip()
    digest = hashlib.sha256(text.encode()).hexdigest() if text else None
    return row | {
        "expected_rating": rating,
        "expected_category": row.get("category"),
        "policy_sha256": digest,
    }


@dataclass(frozen=True, slots=True)
class LlavaGuardJson:
    """An array of some thousand rows, so it is read as a whole."""

    name: str

    @property
    def identity(self) -> str:
        return identity_of(self.name)

    def read(self, after: Cursor = None) -> Iterator[SourceStep]:
        behind = after if isinstance(after, int) else 0
        try:
            rows = from_json(Path(self.name).read_bytes())
        except (OSError, ValueError) as exc:
            raise BadSource(f"{self.name}: {exc}") from exc
        if not isinstance(rows, list):
            raise BadSource(f"{self.name} is no JSON array")
        for number, row in enumerate(rows, start=1):
            if number > behind:
                yield SourceStep(self._what(row), cursor=number, line=number, done=number / len(rows))

    def _what(self, row: Any) -> Item | Reject:
        try:
            labels = _with_labels(
                row, rating=row.get("final-assessment"), prompt=row["conversations"][0]["value"]
            )
            return _columns("image").item(labels, base_of(self.name))
        except InvalidSubmission as exc:
            return Reject(str(exc))
        except (AttributeError, KeyError, IndexError, TypeError):
            return Reject("not a row of LlavaGuard-DS")
