"""How a person says which assessments are meant: the filters that failed, retry and cancel share."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, NoReturn
from uuid import UUID

import typer

from moderation.errors import InvalidSubmission
from moderation.ledger.selection import Selection

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Only these assessments.")]
All = Annotated[bool, typer.Option("--all", help="Every one; without a filter this is asked for.")]
Code = Annotated[list[str] | None, typer.Option(help="Only failures with this code; may be repeated.")]
Host = Annotated[str | None, typer.Option(help="Only images of this host, or S3 bucket.")]
OlderThan = Annotated[
    str | None, typer.Option(metavar="AGE", help="Only what failed longer ago: 90s, 15m, 2h, 7d.")
]
NewerThan = Annotated[
    str | None, typer.Option(metavar="AGE", help="Only what failed since: 90s, 15m, 2h, 7d.")
]
SubmittedBefore = Annotated[
    str | None,
    typer.Option("--older-than", metavar="AGE", help="Only what was submitted longer ago: 90s, 15m, 2h, 7d."),
]
SubmittedSince = Annotated[
    str | None,
    typer.Option("--newer-than", metavar="AGE", help="Only what was submitted since: 90s, 15m, 2h, 7d."),
]

_AGE = re.compile(r"(\d{1,5}(?:\.\d{1,3})?)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def age(text: str) -> timedelta:
    """A time span as people write it: 90s, 15m, 2h, 7d. Raises Misuse."""
    match = _AGE.fullmatch(text.strip().lower())
    if match is None:
        _refuse(text)
    return timedelta(**{_UNITS[match[2]]: float(match[1])})


def selected(
    *,
    ids: list[str] | None = None,
    code: list[str] | None = None,
    batch: str | None = None,
    policy: str | None = None,
    tenant: str | None = None,
    host: str | None = None,
    older_than: str | None = None,
    newer_than: str | None = None,
    submitted_before: str | None = None,
    submitted_since: str | None = None,
) -> Selection:
    """What was typed as what the ledger is asked for. Raises Misuse for what means nothing."""
    try:
        wanted = tuple(UUID(id_) for id_ in ids or ())
    except ValueError:
        raise InvalidSubmission("an assessment's id is a UUID") from None
    return Selection(
        codes=tuple(code or ()),
        batch=batch,
        policy=policy,
        tenant=tenant,
        ids=tuple(dict.fromkeys(wanted)),
        host=host.lower() if host is not None else None,
        ended_before=_ago(older_than),
        ended_after=_ago(newer_than),
        created_before=_ago(submitted_before),
        created_after=_ago(submitted_since),
    )


def _ago(text: str | None) -> datetime | None:
    return datetime.now(UTC) - age(text) if text is not None else None


def _refuse(text: str) -> NoReturn:
    raise InvalidSubmission(f"an age is a number and s, m, h or d, such as 2h; not {text!r}")
