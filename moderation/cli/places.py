"""Places in the feed on the command line: named, verified, set back. For consumers and webhooks alike."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from moderation.cli.open_ledger import opened_ledger
from moderation.cli.output import print_json, print_table, talk
from moderation.cursor import NOW, START, Cursor
from moderation.errors import BadSetting
from moderation.exit_codes import FAILED
from moderation.ledger.feed import check_place, end
from moderation.ledger.migrate import PutBack
from moderation.ledger.verification import (
    PlaceFinding,
    ReaderKind,
    Verification,
    count_passing,
    go_back,
    verify_all,
    verify_consumer,
    verify_webhook,
)

AnyName = Annotated[str | None, typer.Argument(metavar="NAME", help="Only this one; else every one.")]
Repair = Annotated[
    bool,
    typer.Option(
        "--repair/--dry-run", help="Set the place back where verdicts are missing, or change nothing."
    ),
]
BackTo = Annotated[
    str | None, typer.Option("--after", help="Count nothing: set the place back to a cursor or `start`.")
]
_TABLE = {"name": "name", "given": "given out", "exist": "exist", "said": "found"}
_FINDING_TEXTS = {
    PlaceFinding.WHOLE: "nothing is missing",
    PlaceFinding.MISSING: "lost, or acknowledged by a process of release 0.1.0, which does not count",
    PlaceFinding.EXCESS: "more was counted than exists: the count proves nothing",
    PlaceFinding.UNPROVEN: "nothing is known of what came before its place; --after start sends all again",
    PlaceFinding.UNCOUNTED: "too many verdicts to be counted now",
}


def place_named(engine: Engine, text: str) -> Cursor:
    """A cursor's text, `start` or `now`. Raises InvalidCursor."""
    if text == "start":
        return START
    if text == NOW:
        return end(engine)
    cursor = Cursor.parse(text)
    check_place(engine, cursor)
    return cursor


def verify(kind: ReaderKind, name: str | None, after: str | None, *, repair: bool, as_json: bool) -> None:
    """What `verify` does for consumers and for webhooks. Exits 1 where verdicts are missing."""
    if after is not None:
        _set_back(kind, name, after, repair=repair, as_json=as_json)
        return
    with opened_ledger() as engine:
        verifications = _verified(engine, kind, name, repair=repair)
    if as_json:
        print_json([_plain(one) for one in verifications])
    elif not print_table(
        (_plain(one) | {"said": _finding_text(one, repair=repair)} for one in verifications), _TABLE
    ):
        talk(f"no {kind}s")
    if any(one.breach for one in verifications):
        raise typer.Exit(FAILED)


def told_put_back(engine: Engine, places: Sequence[PutBack]) -> Iterator[str]:
    """A line for each place that an upgrade put back, or was told to keep. Counts what lies between, which takes time."""
    for place in places:
        count = f"{count_passing(engine, place.wanted, place.back, place.was):,}"
        if place.kept:
            yield (
                f"{place.kind} {place.name}: kept. Release 0.1.0 may have lost some of {count} verdicts; to send them"
                f" again: vetline {place.kind} verify {place.name} --after {place.back}"
            )
        else:
            yield f"{place.kind} {place.name}: put back, {count} verdicts come again (it was at {place.was})"


def _set_back(kind: ReaderKind, name: str | None, after: str, *, repair: bool, as_json: bool) -> None:
    if name is None:
        raise BadSetting("--after sets one place back: say whose")
    with opened_ledger() as engine:
        count = go_back(engine, kind, name, place_named(engine, after), dry_run=not repair)
    if as_json:
        print_json({kind.value: name, "put_back": repair, "come_again": count})
    else:
        talk(
            f"{name}: {'put back' if repair else 'nothing changed'}, {count:,} verdicts {_come(repair)} again"
        )


def _verified(engine: Engine, kind: ReaderKind, name: str | None, *, repair: bool) -> list[Verification]:
    if name is None:
        return verify_all(engine, kind, repair=repair)
    one = verify_consumer if kind is ReaderKind.CONSUMER else verify_webhook
    return [one(engine, name, repair=repair)]


def _plain(verification: Verification) -> dict[str, Any]:
    verified = None if verification.verified is None else str(verification.verified)
    return asdict(verification) | {"place": str(verification.place), "verified": verified}


def _finding_text(verification: Verification, *, repair: bool) -> str:
    if verification.breach:
        done = "put back" if verification.put_back else "nothing changed"
        return f"{_FINDING_TEXTS[verification.finding]}; {done}, {verification.exist:,} {_come(verification.put_back)} again"
    if verification.finding is PlaceFinding.UNPROVEN and repair:
        return f"{_FINDING_TEXTS[verification.finding]}; counted from here on"
    return _FINDING_TEXTS[verification.finding]


def _come(put_back: bool) -> str:
    return "come" if put_back else "would come"
