"""`vetline enqueue`: submit images from files, folders, URLs, s3 objects, lists, tables or lines of text."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from moderation.assessment import Ticket
from moderation.cli.open_ledger import check_tables
from moderation.cli.output import print_json, print_jsonl, progress_bar, talk
from moderation.exit_codes import SOME_FAILED
from moderation.ledger.engine import ledger_url, open_ledger
from moderation.ledger.policies import pin
from moderation.ledger.status import is_there
from moderation.services.resolve import Services, resolve
from moderation.settings import ServiceSettings
from producer.checkpoint import Checkpoint, Position, digest
from producer.client import Client
from producer.enqueue import EnqueueCallbacks, EnqueueRun, SubmitOptions
from producer.rejects import Rejects
from producer.sources import STDIN, Columns, FileFormat, Source, SourceOptions, open_source
from producer.sources.unused_fields import UnusedFields
from producer.validation import SharedFields, check_policies, validated

commands = typer.Typer()
DEFAULT_POLICY = "llavaguard-default"

_LISTS = "Lists and tables"
_SOURCE = "A file, folder, URL, list (.txt, .jsonl, .csv, .parquet), s3://bucket/prefix/, or - for lines."


@commands.command()
def enqueue(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help=_SOURCE)],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Policy id, or id@revision; repeat it to judge each image under several.",
            show_default=DEFAULT_POLICY,
        ),
    ] = None,
    batch: Annotated[str | None, typer.Option(help="A name to find these by.")] = None,
    priority: Annotated[str, typer.Option(help="high, normal or low.")] = "normal",
    tenant: Annotated[str | None, typer.Option(help="On whose behalf.")] = None,
    pattern: Annotated[
        list[str] | None,
        typer.Option(help="Only these names in folders and below prefixes, such as '*.jpg'."),
    ] = None,
    form: Annotated[
        FileFormat, typer.Option("--format", help="What the list or folder is.", rich_help_panel=_LISTS)
    ] = FileFormat.AUTO,
    uri_column: Annotated[
        str | None, typer.Option(help="Where the image's URI or path stands.", rich_help_panel=_LISTS)
    ] = None,
    key_column: Annotated[
        str | None, typer.Option(help="Where its idempotency key stands.", rich_help_panel=_LISTS)
    ] = None,
    priority_column: Annotated[
        str | None,
        typer.Option(
            help="Where its priority stands: high, normal, low, or empty for --priority.",
            rich_help_panel=_LISTS,
        ),
    ] = None,
    metadata_column: Annotated[
        list[str] | None,
        typer.Option(help="Kept with the verdict; repeat it, or * for all.", rich_help_panel=_LISTS),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Judge anew what is known, by its place or by its pixels.")
    ] = False,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Do not go on where an interrupted run stopped.")
    ] = False,
    refused: Annotated[
        Path | None, typer.Option(help="Where to write what is refused, as JSON lines.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only read and check; submit nothing.")] = False,
    tickets: Annotated[bool, typer.Option("--tickets", help="Print a JSON line for each item.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Totals as JSON on stdout.")] = False,
) -> None:
    """Submit images from files, folders, URLs, lists or S3.

    What is enqueued twice is judged once, unless --again. Interrupted, the same command goes on where it stopped.
    What is refused goes to a file, and the exit code is 3; it is 3 too where somebody cancelled what was enqueued
    before, which only --again judges.
    """
    shared = SharedFields(batch=batch, priority=priority, tenant=tenant)
    wanted = SubmitOptions(policy or [DEFAULT_POLICY], shared, again)
    check_policies(wanted.policies, keyed=not again)
    validated(uri="s3://x/y", policy=wanted.policies[0], **shared)  # a mistake in these is not each image's
    columns = Columns(
        uri=uri_column,
        key=key_column,
        metadata=tuple(metadata_column or ()),
        priority=priority_column,
        unused=UnusedFields(talk),
    )
    reading = SourceOptions(form, columns, tuple(pattern or ()))
    opened = [open_source(source, reading) for source in sources]
    with ExitStack() as stack:
        run = _Run(opened, wanted, stack, refused, tickets=tickets)
        place = run.dry(reading) if dry_run else run.submitting(reading, from_start=from_start)
        _report(place, run.rejects, as_json=as_json, dry=dry_run)
    if place.refused or place.cancelled:
        raise typer.Exit(SOME_FAILED)


class _Run:
    """What a run of the command holds open."""

    def __init__(
        self,
        sources: Sequence[Source],
        wanted: SubmitOptions,
        stack: ExitStack,
        refused: Path | None,
        *,
        tickets: bool,
    ) -> None:
        self._sources = sources
        self._wanted = wanted
        self._stack = stack
        self._refused = refused
        self._tickets = tickets
        self._folder = ServiceSettings().data_dir / "enqueue"
        self.rejects: Rejects

    def dry(self, reading: SourceOptions) -> Position:
        """Only checks: no service is asked. Its refusals are those of these sources and options."""
        name = f"{digest(self._job(reading))}.dry-run.refused.jsonl"
        self.rejects = Rejects(self._refused or self._folder / name)
        return self._run(None, Position(), None)

    def submitting(self, reading: SourceOptions, *, from_start: bool) -> Position:
        services = self._stack.enter_context(resolve(need_redis=True))
        job = [*self._job(reading), _ledger_identity(services)]
        checkpoint = self._stack.enter_context(Checkpoint(self._folder, job))
        client = self._stack.enter_context(Client(services.database_url, services.redis_url))
        place = self._start(checkpoint, services, from_start=from_start)
        self.rejects = Rejects(self._refused or checkpoint.refused_path, keep_bytes=place.refused_bytes)
        checkpoint.write(place)
        place = self._run(client, place, checkpoint)
        checkpoint.forget()
        return place

    def _job(self, reading: SourceOptions) -> list[object]:
        """What makes it the same enqueuing, but for the ledger."""
        return [
            [source.identity for source in self._sources],
            [list(self._wanted.policies), dict(self._wanted.shared), self._wanted.again, repr(reading)],
        ]

    def _start(self, checkpoint: Checkpoint, services: Services, *, from_start: bool) -> Position:
        """Behind what an interrupted run committed. Raises LedgerUnavailable, UnknownPolicy before anything is read."""
        engine = open_ledger(services.database_url)
        try:
            check_tables(engine)
            pin(engine, self._wanted.policies)
            place = checkpoint.read()
            if place is None:
                return Position()
            if from_start:  # under new keys, where it is --again
                return Position()
            if place.last is None or not is_there(engine, place.last) or self._reads_stdin:
                return place.again()
        finally:
            engine.dispose()
        talk(f"going on behind {place.accepted + place.known + place.refused} of an interrupted run")
        return place

    @property
    def _reads_stdin(self) -> bool:
        """What was read there before cannot be told from what is there now; its keys keep it from doubling."""
        return any(source.name == STDIN for source in self._sources)

    def _run(self, client: Client | None, place: Position, checkpoint: Checkpoint | None) -> Position:
        self._stack.enter_context(self.rejects)
        bar = self._stack.enter_context(progress_bar())
        before = place.accepted + place.known + place.refused
        task = bar.add_task("enqueue", total=None, before=before, completed=before)

        def progress(place: Position, done: float | None) -> None:
            count = place.accepted + place.known + place.refused
            bar.update(task, completed=count, total=count / done if done else None)

        def told(done: Sequence[Ticket]) -> None:
            if self._tickets:
                print_jsonl(_shown(ticket) for ticket in done)

        watching = EnqueueCallbacks(progress, told, talk)
        return EnqueueRun(self._sources, self._wanted, client, watching).run(place, self.rejects, checkpoint)


def _shown(ticket: Ticket) -> dict[str, object]:
    return {"id": ticket.id, "policy": ticket.policy, "known": ticket.known, "cancelled": ticket.cancelled}


def _ledger_identity(services: Services) -> str:
    """Which ledger it is, without its password: one that was started here has another port each time."""
    if services.database_from != "configured":
        return services.database_from
    return ledger_url(services.database_url).render_as_string(hide_password=True)


def _report(place: Position, rejects: Rejects, *, as_json: bool, dry: bool) -> None:
    counts: dict[str, object] = {
        "accepted": place.accepted,
        "known": place.known,
        "cancelled": place.cancelled,
        "refused": place.refused,
    }
    if dry:
        counts = {"would_submit": place.accepted, "refused": place.refused}
    if place.refused:
        counts["refused_file"] = str(rejects.path)
    if as_json:
        print_json(counts)
    else:
        talk(
            ", ".join(
                _count_text(name, value) for name, value in counts.items() if name != "cancelled" or value
            )
        )
    for line in rejects.first:
        talk(f"refused: {line}")


def _count_text(name: str, value: object) -> str:
    if name == "cancelled":
        return f"of them {value} cancelled and left so (--again judges them)"
    return f"{name.replace('_', ' ')} {value}"
