"""`vetline evaluate`: hold verdicts against labels that people gave."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from sqlalchemy import Engine

from moderation.cli.open_ledger import opened_ledger
from moderation.cli.output import duration_text, print_table, progress_bar, say, talk
from moderation.cli.signature import login_name, plain_words
from moderation.errors import BadSetting, InvalidSubmission, PolicyError
from moderation.exit_codes import SOME_FAILED
from moderation.ledger import counters, registry
from moderation.ledger.evaluation_runs import find_run, items_of, save_run, times_used
from moderation.ledger.evaluations import cost_of
from moderation.ledger.policies import PinnedPolicy
from moderation.policy import PolicyRevision
from moderation.policy.prompt import parse_prompt
from moderation.settings import ServiceSettings

if TYPE_CHECKING:
    from consumer.evaluation.judging import Judgements, Rules
    from consumer.evaluation.report import Evaluation
    from consumer.evaluation.sources import LabelledData

commands = typer.Typer()

DRAWS = 10_000
_LOOK_S = 1.0
_SAY_S = 10.0  # between two lines of progress where stderr is no terminal
_COLUMNS = "Columns"
_MEASURING = "Measuring"


@commands.command()
def evaluate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="LabelledImage rows: .csv, .tsv, .jsonl, .json, .parquet; or batch:NAME, whose metadata hold labels.",
        ),
    ],
    policy: Annotated[
        str | None, typer.Option(metavar="ID[@REV]", help="The revision to measure; a draft may be.")
    ] = None,
    own_policies: Annotated[
        bool, typer.Option("--own-policies", help="Judge each row under the rules that it carries.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="Score only verdicts of this model.")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="RUN", help="Compare with this run, row by row.")
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Measure by its values too; may be repeated.")
    ] = None,
    existing: Annotated[
        bool, typer.Option("--existing", help="Judge nothing: take the verdicts that are there.")
    ] = False,
    batch: Annotated[
        str | None,
        typer.Option(
            help="The batch of what is judged; the same goes on.", show_default="by data, policy, model"
        ),
    ] = None,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Verdicts about the same pixels may answer.")
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Queue, and measure what is judged by now.")
    ] = False,
    label_column: Annotated[
        str | None, typer.Option(help="Safe or Unsafe.", rich_help_panel=_COLUMNS)
    ] = None,
    uri_column: Annotated[str | None, typer.Option(help="The image.", rich_help_panel=_COLUMNS)] = None,
    id_column: Annotated[str | None, typer.Option(help="The row's name.", rich_help_panel=_COLUMNS)] = None,
    category_column: Annotated[
        str | None, typer.Option(help="Its category.", rich_help_panel=_COLUMNS)
    ] = None,
    policy_column: Annotated[
        str | None, typer.Option(help="The rules it was labelled under.", rich_help_panel=_COLUMNS)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the draws; the same gives the same.", rich_help_panel=_MEASURING)
    ] = None,
    draws: Annotated[
        int, typer.Option(min=200, help="Of the bootstrap.", rich_help_panel=_MEASURING)
    ] = DRAWS,
    report: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write report.html, report.json and plots.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who measures; your login name if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON on stdout.")] = False,
) -> None:
    """Measure verdicts against labels, with intervals.

    Rows are judged through the ordinary queue, at low priority, and no feed shows them.

    Broken off, the same command goes on. The run is kept: `vetline evaluations`.

    What has no verdict is counted by its code and never scored: exit code 3.
    """
    check_installed()
    from consumer.evaluation.labels import LabelColumns
    from consumer.evaluation.report import SEED

    _check_options(source, policy, own_policies, existing)
    who = plain_words("--by", by if by is not None else login_name())
    columns = LabelColumns(
        uri_column, label_column, id_column, category_column, policy_column, tuple(group or ())
    )
    measuring = _Measuring(
        columns=columns, model=model, existing=existing, batch=batch, reuse=reuse, wait=not no_wait,
        seed=SEED if seed is None else seed, draws=draws,
    )  # fmt: skip
    with opened_ledger() as engine:
        evaluation = measuring.run(engine, source, policy, own=own_policies)
        comparison = _compared(engine, evaluation, against, draws) if against else None
        if not save_run(engine, evaluation.head(who), evaluation.items()):
            talk(f"run {evaluation.id} stands already")
        _tell_used(engine, evaluation)
    _show(evaluation, comparison, report, as_json)
    if evaluation.document["metrics"]["unassessed"]["value"]:
        raise typer.Exit(SOME_FAILED)


class _Measuring:
    """How rows become a run, whatever they come from."""

    def __init__(
        self, *, columns: Any, model: str | None, existing: bool, batch: str | None, reuse: bool, wait: bool, seed: int,
        draws: int,
    ) -> None:  # fmt: skip
        self._columns = columns
        self._model = model
        self._existing = existing
        self._batch = batch
        self._reuse = reuse
        self._wait = wait
        self._seed = seed
        self._draws = draws

    def run(self, engine: Engine, source: str, policy: str | None, *, own: bool) -> "Evaluation":
        from consumer.evaluation import judging
        from consumer.evaluation.report import Subject, evaluate
        from consumer.evaluation.sources import read_labelled

        entry = None if own or policy is None else registry.find(engine, policy)
        if source.startswith("batch:"):
            assert entry is not None
            rules = _one(entry)
            name = source.removeprefix("batch:")
            data, judged = judging.labelled_batch(engine, name, self._columns, rules, model=self._model)
        else:
            data = read_labelled(source, self._columns, images=ServiceSettings().data_dir / "evaluate")
            rules = _one(entry) if entry else _own_rules(engine, data)
            judged = self._judged(engine, data, rules, entry.ref if entry else "own")
        scored = [row.assessment for row in judged.rows if row.code is None and row.assessment]
        subject = Subject(
            source=Path(data.name).name,
            data_sha256=data.sha256,
            policy=entry.ref if entry else "own",
            policy_revision_id=entry.id if entry else None,
            prompt_sha256=entry.prompt_sha256 if entry else None,
            groups=self._columns.groups,
            options={
                "model": self._model,
                "existing": self._existing,
                "reuse": self._reuse,
                "batch": self._batch,
            },
        )
        cost = cost_of(engine, scored)
        return evaluate(
            subject, judged, seed=self._seed, draws=self._draws,
            cost={name: getattr(cost, name) for name in cost.__dataclass_fields__},
        )  # fmt: skip

    def _judged(self, engine: Engine, data: "LabelledData", rules: "Rules", ref: str) -> "Judgements":
        from consumer.evaluation import judging

        if self._existing:
            return judging.of_uris(engine, data, rules, model=self._model)
        words = ["evaluate", data.sha256[:12], ref, *([self._model] if self._model else [])]
        batch = self._batch or "-".join(words)
        with progress_bar() as bar:
            task = bar.add_task("submit", total=len(data.rows))
            judging.submit(
                engine, data, rules, batch=batch, reuse=self._reuse, on_rows=lambda n: bar.advance(task, n)
            )
        if self._wait:
            wait_for_batch(engine, batch)
        return judging.of_batch(engine, data, rules, batch=batch, model=self._model)


def wait_for_batch(engine: Engine, batch: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Until nothing of it is open; a bar on a terminal, elsewhere a line every ten seconds."""
    said = time.monotonic() - _SAY_S
    with progress_bar() as bar:
        task = bar.add_task("judge", total=None)
        while True:
            found = counters.progress(engine, batch=batch)
            total = sum(found.states.values())
            bar.update(task, total=total, completed=total - found.open)
            if not found.open:
                return
            if bar.disable and time.monotonic() - said >= _SAY_S:
                said = time.monotonic()
                left = f", {duration_text(found.left_s)} left" if found.left_s is not None else ""
                talk(f"judging {batch}: {total - found.open} of {total}{left}")
            sleep(_LOOK_S)


def check_installed() -> None:
    try:
        import scipy  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError:
        raise BadSetting("measuring needs scikit-learn and scipy: pip install 'vetline[evaluate]'") from None


def _check_options(source: str, policy: str | None, own: bool, existing: bool) -> None:
    if own == (policy is not None):
        raise InvalidSubmission("name the --policy to measure, or say --own-policies")
    if own and (existing or source.startswith("batch:")):
        raise InvalidSubmission(
            "--own-policies judges rows of a file; --existing and batch: are of one --policy"
        )


def _one(entry: registry.RegistryEntry) -> "Rules":
    from consumer.evaluation.judging import Rules

    return Rules(PinnedPolicy(entry.id, entry.policy, entry.revision), entry.prompt_sha256)


def _own_rules(engine: Engine, data: "LabelledData") -> "Rules":
    """A revision for each of the rules that rows carry: one that stands, or a new one of a policy of its own."""
    from consumer.evaluation.judging import Rules

    standing = {entry.prompt_sha256: entry for entry in registry.entries(engine)}
    texts = {row.policy: row.text for row in data.rows if row.policy and row.text}
    own: dict[str, PinnedPolicy] = {}
    for digest, text in texts.items():
        if digest not in standing:
            try:
                categories = parse_prompt(text)
            except PolicyError:
                continue
            made = PolicyRevision(
                policy=f"labels-{digest[:12]}", title=f"Rules of {data.name}"[:200], categories=categories
            )
            registry.add(engine, made, by="vetline evaluate", reason="rules that labelled rows carry")
            standing = {entry.prompt_sha256: entry for entry in registry.entries(engine)}
        entry = standing[digest]
        own[digest] = PinnedPolicy(entry.id, entry.policy, entry.revision)
    return Rules(None, None, own)


def _compared(engine: Engine, evaluation: "Evaluation", against: str, draws: int) -> dict[str, Any]:
    from consumer.evaluation.compare import compare
    from consumer.evaluation.report import judged_of

    other = find_run(engine, against)
    before = [judged_of(item) for item in items_of(engine, other.id)]
    found = compare(
        before,
        evaluation.sample.rows,
        evaluation.subject.groups,
        seed=evaluation.document["seed"],
        draws=draws,
    )
    return {"run": str(other.id)} | found


def _tell_used(engine: Engine, evaluation: "Evaluation") -> None:
    """A set that is measured on again and again is learnt by heart, by those who choose what goes live."""
    if times := times_used(engine, evaluation.subject.data_sha256, but=evaluation.id):
        talk(f"warning: {times} other runs were on this data; the more often, the less a good figure says")


def _show(
    evaluation: "Evaluation", comparison: dict[str, Any] | None, folder: Path | None, as_json: bool
) -> None:
    from consumer.cli.evaluations import show_comparison
    from consumer.evaluation.pages import table_rows, write_report

    for line in evaluation.document["warnings"]:
        talk(f"warning: {line}")
    if as_json:
        say(as_text(evaluation, comparison).rstrip("\n"))
    else:
        rows = table_rows(evaluation.document["metrics"])
        heads = {"measure": "measure", "value": "value", "interval": "95 % interval", "n": "n"}
        print_table((dict(zip(heads, row, strict=True)) for row in rows), heads)
        if comparison:
            show_comparison(comparison)
    scored, rows_in = evaluation.document["scored"], evaluation.document["data"]["rows"]
    talk(f"{scored} of {rows_in} rows scored; data {evaluation.subject.data_sha256}; run {evaluation.id}")
    if folder:
        write_report(evaluation, comparison, folder)
        talk(f"report in {folder / 'report.html'}")


def as_text(evaluation: "Evaluation", comparison: dict[str, Any] | None) -> str:
    """The report, and the comparison where one was asked for."""
    from pydantic_core import to_json

    if comparison is None:
        return evaluation.as_bytes.decode()
    return to_json(evaluation.report | {"comparison": comparison}, indent=2).decode() + "\n"
