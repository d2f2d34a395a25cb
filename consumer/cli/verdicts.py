"""`vetline verdicts` shows verdicts to a person, or writes them as a file for programs, with a report beside it."""

import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from consumer.export.formats import ExportFormat
from consumer.export.run import ExportRequest, ExportResult, export, first_rows, report_only
from consumer.report.folder import write_report
from consumer.report.summary import WARN_SHARE, Report
from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Batch, Json, Policy
from moderation.cli.output import print_table, progress_counter, talk
from moderation.errors import InvalidSubmission
from moderation.exit_codes import UNSAFE_FOUND
from moderation.ledger.export import ExportFilter
from moderation.policy import parse_ref
from moderation.verdict import Rating

commands = typer.Typer()

Since = Annotated[
    str | None, typer.Option(help="Recorded at or after: 2026-11-24 or 2026-11-24T10:00Z; UTC.")
]
Until = Annotated[str | None, typer.Option(help="Recorded before.")]
_CATEGORY = re.compile(r"NA|O[1-9][0-9]{0,2}")
_TABLE_ROWS = 1000  # a table is laid out as a whole, and nobody reads more
_TABLE = {
    "uri": "image",
    "policy": "policy",
    "rating": "rating",
    "category": "category",
    "p_unsafe": "P(unsafe)",
    "rationale": "rationale",
}


@commands.command()
def verdicts(
    since: Since = None,
    until: Until = None,
    policy: Policy = None,
    batch: Batch = None,
    unsafe: Annotated[bool, typer.Option("--unsafe", help="Only images rated Unsafe.")] = False,
    safe: Annotated[bool, typer.Option("--safe", help="Only images rated Safe.")] = False,
    category: Annotated[
        str | None, typer.Option(help="Only this category's id: O1 to O9, an own one, NA.")
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="P(unsafe) at least this, 0 to 1.")] = None,
    max_score: Annotated[float | None, typer.Option(help="P(unsafe) at most this, 0 to 1.")] = None,
    current: Annotated[
        bool, typer.Option("--current", help="Of an image that was judged again, the last verdict alone.")
    ] = False,
    form: Annotated[
        ExportFormat | None, typer.Option("--format", help="By default what --output ends in, or table.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write a file, whole or not at all.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="CSV as it is: no ' before what a spreadsheet would run.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help=f"So many; a table has {_TABLE_ROWS}.")] = None,
    with_report: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Counts, shares removed, plots, warnings.")
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(metavar="folder|metadata:KEY", help="Of which groups the report has the shares."),
    ] = None,
    warn_share: Annotated[
        float, typer.Option(min=0, max=1, help="Warn of a group that loses more than this.")
    ] = WARN_SHARE,
    as_json: Json = False,
    fail_on: Annotated[str | None, typer.Option(help="`unsafe`: exit 4 if any image is.")] = None,
) -> None:
    """List verdicts, or write them as JSON lines, CSV or Parquet.

    They come in the order in which they were committed.
    """
    if fail_on not in {None, "unsafe"}:
        raise InvalidSubmission(f"--fail-on takes unsafe, not {fail_on!r}")
    if group_by is not None and not re.fullmatch(r"folder|metadata:.+", group_by):
        raise InvalidSubmission(f"--group-by takes folder or metadata:KEY, not {group_by!r}")
    if group_by is not None and with_report is None:
        raise InvalidSubmission("--group-by is about a report: say --with-report FOLDER too")
    wanted = ExportRequest(
        choice=export_filter(
            since=since,
            until=until,
            policy=policy,
            batch=batch,
            rating=_rating(unsafe, safe),
            category=category,
            scores=(min_score, max_score),
            current=current,
        ),
        form=_form(form, output, as_json),
        output=output,
        limit=limit,
        report=with_report is not None,
        group_by=group_by,
        warn_share=warn_share,
        raw=raw,
    )
    if raw and wanted.form is not ExportFormat.CSV:
        raise InvalidSubmission("--raw is about CSV: say --format csv too")
    done = _tabled(wanted) if wanted.form is ExportFormat.TABLE else _written(wanted)
    if done.report and with_report:
        _tell_report(done.report, with_report)
    if fail_on and done.unsafe:
        raise typer.Exit(UNSAFE_FOUND)


def export_filter(
    *,
    since: str | None,
    until: str | None,
    policy: str | None,
    batch: str | None,
    rating: Rating | None = None,
    category: str | None = None,
    scores: tuple[float | None, float | None] = (None, None),
    current: bool = False,
) -> ExportFilter:
    """What was typed as what the ledger is asked for. Raises Misuse for what means nothing."""
    if category is not None and not _CATEGORY.fullmatch(category):
        raise InvalidSubmission(f"--category takes an id such as O4, or NA, not {category!r}")
    if any(score is not None and not 0 <= score <= 1 for score in scores):
        raise InvalidSubmission("--min-score and --max-score are probabilities, 0 to 1")
    name, revision = parse_ref(policy) if policy is not None else (None, None)
    return ExportFilter(
        since=_time("--since", since),
        until=_time("--until", until),
        policy=name,
        revision=revision,
        batch=batch,
        rating=rating.value if rating else None,
        category=category,
        score_from=scores[0],
        score_to=scores[1],
        current=current or None,
    )


def _tabled(wanted: ExportRequest) -> ExportResult:
    """A table for a person; the whole of it stands in memory, so it is a short one."""
    done, most = ExportResult(), wanted.limit or _TABLE_ROWS
    with opened_ledger() as engine:

        def shown() -> Iterator[dict[str, object]]:
            for row in first_rows(engine, wanted.choice, most):
                done.rows += 1
                done.unsafe += row["rating"] == "Unsafe"
                yield row

        print_table(shown(), _TABLE, style=lambda row: "red" if row["rating"] == "Unsafe" else None)
        if wanted.report:
            done.report = report_only(engine, wanted)
    if not done.rows:
        talk("no verdicts")
    elif done.rows == most and wanted.limit is None:
        talk(f"the first {most}; --limit shows more, --format writes all")
    return done


def _written(wanted: ExportRequest) -> ExportResult:
    start = time.monotonic()
    with opened_ledger() as engine, progress_counter("verdicts") as more:
        done = export(engine, wanted, on_rows=more)
    if wanted.output is not None:
        talk(f"{done.rows} verdicts in {wanted.output}, {time.monotonic() - start:.1f} s")
    return done


def _tell_report(report: Report, folder: Path) -> None:
    plots = write_report(report, folder)
    for line in report.warnings[:20]:
        talk(f"warning: {line}")
    if len(report.warnings) > 20:
        talk(f"and {len(report.warnings) - 20} more warnings in {folder / 'report.json'}")
    if plots is None:
        talk("no plots: they need matplotlib, pip install 'vetline[plots]'")
    talk(f"report in {folder}")


def _form(form: ExportFormat | None, output: Path | None, as_json: bool) -> ExportFormat:
    """What was asked for, else what the file's name says, else a table."""
    if as_json:
        return ExportFormat.JSONL
    if form is None and output is not None:
        names = {".jsonl": ExportFormat.JSONL, ".csv": ExportFormat.CSV, ".parquet": ExportFormat.PARQUET}
        form = names.get(output.suffix.lower())
        if form is None:
            raise InvalidSubmission(f"--output {output}: say --format jsonl, csv or parquet")
    if form is ExportFormat.TABLE and output is not None:
        raise InvalidSubmission("a table is for a terminal: --output takes --format jsonl, csv or parquet")
    if form is ExportFormat.PARQUET and output is None and sys.stdout.isatty():
        raise InvalidSubmission("Parquet is not for a terminal: say --output FILE")
    return form or ExportFormat.TABLE


def _rating(unsafe: bool, safe: bool) -> Rating | None:
    if unsafe and safe:
        raise InvalidSubmission("--unsafe and --safe leave nothing; leave both out for everything")
    return Rating.UNSAFE if unsafe else Rating.SAFE if safe else None


def _time(option: str, value: str | None) -> datetime | None:
    """A day or a moment; without a zone it is UTC, as the ledger's own times are."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise InvalidSubmission(f"{option} takes 2026-11-24 or 2026-11-24T10:00Z, not {value!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
