"""`vetline export dsa` writes drafts of statements of reasons for Unsafe verdicts."""

from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from pydantic_core import to_json

from consumer.cli.verdicts import Since, Until, export_filter
from consumer.dsa.draft import NOTICE, Circumstances, DraftRefused, Mappings, draft
from consumer.dsa.statement import Automated, Source
from consumer.output_file import opened, written_aside
from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Batch, Json, Policy
from moderation.cli.output import print_json, progress_counter, talk
from moderation.errors import InvalidSubmission
from moderation.exit_codes import SOME_FAILED
from moderation.ledger import registry
from moderation.ledger.export import COLUMNS, snapshot, verdict_pages
from moderation.policy import PolicyRevision
from moderation.policy.dsa_values import EEA, EU, RESTRICTIONS
from moderation.verdict import Rating

commands = typer.Typer()
_export = typer.Typer(help="Export verdicts in forms that others prescribe.", no_args_is_help=True)
commands.add_typer(_export, name="export")

_SAID = 20  # refusals named on stderr; --refused has all
_NAMES = [column.name for column in COLUMNS]


class DecisionMode(StrEnum):
    """How the decision itself was taken; that the image was found by automated means is given."""

    FULLY = "fully"
    PARTIALLY = "partially"
    BY_PEOPLE = "by-people"


class Origin(StrEnum):
    """Why the platform looked at the image."""

    OWN = "own-initiative"
    NOTICE = "article-16"
    FLAGGER = "trusted-flagger"
    OTHER = "other-notification"


_DECIDED: dict[DecisionMode, Automated] = {
    DecisionMode.FULLY: "AUTOMATED_DECISION_FULLY",
    DecisionMode.PARTIALLY: "AUTOMATED_DECISION_PARTIALLY",
    DecisionMode.BY_PEOPLE: "AUTOMATED_DECISION_NOT_AUTOMATED",
}
_SOURCES: dict[Origin, Source] = {
    Origin.OWN: "SOURCE_VOLUNTARY",
    Origin.NOTICE: "SOURCE_ARTICLE_16",
    Origin.FLAGGER: "SOURCE_TRUSTED_FLAGGER",
    Origin.OTHER: "SOURCE_TYPE_OTHER_NOTIFICATION",
}


@dataclass(slots=True)
class _DraftCounts:
    drafted: int = 0
    refused: int = 0
    named: list[str] = field(default_factory=list)


@_export.command("dsa")
def dsa(
    decided: Annotated[DecisionMode, typer.Option(help="How the decision was taken. Vetline cannot know.")],
    since: Since = None,
    until: Until = None,
    policy: Policy = None,
    batch: Batch = None,
    restriction: Annotated[
        str | None, typer.Option(help="What was done, such as CONTENT_REMOVED; else what the policy says.")
    ] = None,
    terms: Annotated[
        str | None, typer.Option(help="The clause of your terms; else what the policy says.")
    ] = None,
    territory: Annotated[
        list[str] | None, typer.Option(help="EU, EEA, or a country's two letters; repeat it.")
    ] = None,
    origin: Annotated[Origin, typer.Option("--source", help="Why the image was looked at.")] = Origin.OWN,
    content_date: Annotated[
        str | None, typer.Option(metavar="metadata:KEY", help="The day of posting; else that of submission.")
    ] = None,
    with_rationale: Annotated[
        bool, typer.Option("--with-rationale", help="The model's words too; they may describe a person.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Write a file, whole or not at all.")] = None,
    refused: Annotated[
        Path | None, typer.Option(help="Write what was refused, and why, as JSON lines.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draft statements of reasons (EU DSA, Article 17).

    One for each Unsafe verdict, a JSON object a line. They are drafts: nothing is submitted, and a person checks
    each. Where an image was judged again, the last verdict counts. Exit code 3 where some could not be drafted.
    """
    if as_json and output is None:
        raise InvalidSubmission("--json is about totals on stdout: say --output FILE for the drafts")
    if restriction is not None and restriction not in RESTRICTIONS:
        raise InvalidSubmission(f"--restriction takes {', '.join(sorted(RESTRICTIONS))}")
    circumstances = Circumstances(
        automated_decision=_DECIDED[decided],
        source_type=_SOURCES[origin],
        territorial_scope=_territory(territory or []),
        restriction=restriction,
        terms=terms,
        content_date_key=_metadata_key(content_date),
        rationale=with_rationale,
    )
    choice = export_filter(
        since=since, until=until, policy=policy, batch=batch, rating=Rating.UNSAFE, current=True
    )
    done = _DraftCounts()
    with opened_ledger() as engine, progress_counter("drafts") as more:
        mappings = Mappings(PolicyRevision.model_validate(e.document) for e in registry.entries(engine))
        with (
            opened(output) as drafts,
            written_aside(refused) if refused else nullcontext() as refusals,
            snapshot(engine) as connection,
            closing(verdict_pages(connection, choice)) as pages,
        ):
            for page in pages:
                for row in page:
                    _write(
                        dict(zip(_NAMES, row, strict=True)), mappings, circumstances, done, drafts, refusals
                    )
                more(len(page))
    _report(done, as_json)


def _write(
    row: dict[str, object],
    mappings: Mappings,
    circumstances: Circumstances,
    done: _DraftCounts,
    drafts: BinaryIO,
    refusals: BinaryIO | None,
) -> None:
    about = {"assessment": row["id"], "policy": row["policy"]}
    try:
        statement = draft(row, mappings, circumstances)
    except DraftRefused as exc:
        done.refused += 1
        if len(done.named) < _SAID:
            done.named.append(f"{row['id']}: {exc}")
        if refusals is not None:
            refusals.write(to_json(about | {"refused": str(exc)}) + b"\n")
        return
    done.drafted += 1
    content = statement.model_dump(mode="json", exclude_none=True)
    drafts.write(to_json({"draft": NOTICE, **about, "statement": content}) + b"\n")


def _report(done: _DraftCounts, as_json: bool) -> None:
    if as_json:
        print_json({"drafted": done.drafted, "refused": done.refused})
    talk(f"drafted {done.drafted}, refused {done.refused}; {NOTICE}")
    for line in done.named:
        talk(f"refused: {line}")
    if done.refused > len(done.named):
        talk(f"and {done.refused - len(done.named)} more; --refused FILE has all")
    if done.refused:
        raise typer.Exit(SOME_FAILED)


def _territory(names: list[str]) -> tuple[str, ...]:
    known = {"EU": EU, "EEA": EEA} | {country: frozenset({country}) for country in EEA}
    if foreign := next((name for name in names if name.upper() not in known), None):
        raise InvalidSubmission(f"--territory takes EU, EEA or a country of it such as FR, not {foreign!r}")
    return tuple(sorted(frozenset().union(*(known[name.upper()] for name in names))))


def _metadata_key(text: str | None) -> str | None:
    if text is None:
        return None
    kind, _, key = text.partition(":")
    if kind != "metadata" or not key:
        raise InvalidSubmission(f"--content-date takes metadata:KEY, not {text!r}")
    return key
