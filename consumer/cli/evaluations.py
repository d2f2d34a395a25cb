"""`vetline evaluations`: runs that were kept; one of them, or one against another."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Json
from moderation.cli.output import print_json, print_jsonl, print_table, say, talk
from moderation.ledger.evaluation_runs import Run, find_run, items_of
from moderation.ledger.evaluation_runs import runs as kept_runs

commands = typer.Typer()
_group = typer.Typer(help="List, show and compare evaluation runs.", no_args_is_help=True)
commands.add_typer(_group, name="evaluations")

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Its id, or how that begins.")]
_LIST = {
    "id": "run",
    "on": "on",
    "policy": "policy",
    "model": "model",
    "source": "data",
    "scored": "scored",
    "balanced": "bal. acc.",
    "recall": "recall",
    "specificity": "specificity",
}


@_group.command("list")
def list_(
    policy: Annotated[str | None, typer.Option(help="Only of this policy, or id@revision.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="So many, the newest first.")] = 50,
    as_json: Json = False,
) -> None:
    """List runs, the newest first."""
    with opened_ledger() as engine:
        found = kept_runs(engine, policy=policy, limit=limit)
    if as_json:
        print_json([_head(run) for run in found])
    else:
        print_table((_row(run) for run in found), _LIST)


@_group.command()
def show(
    run: RunId,
    rows: Annotated[
        bool, typer.Option("--rows", help="Its rows as JSON lines, with what became of each.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a run: its warnings, its table, what it rests on."""
    from consumer.evaluation.pages import table_rows

    with opened_ledger() as engine:
        found = find_run(engine, run)
        if rows:
            print_jsonl(
                {name: getattr(item, name) for name in item.__dataclass_fields__}
                for item in items_of(engine, found.id)
            )
            return
    if as_json:
        print_json(_head(found) | {"report": found.report})
        return
    for line in found.report["warnings"]:
        talk(f"warning: {line}")
    say(f"run {found.id} of {found.policy} on {found.source}, by {found.created_by}")
    say(f"data {found.data_sha256}\nweights {found.weights_sha256 or 'not one, or not named'}")
    heads = {"measure": "measure", "value": "value", "interval": "95 % interval", "n": "n"}
    print_table((dict(zip(heads, row, strict=True)) for row in table_rows(found.metrics)), heads)


@_group.command()
def compare(
    before: RunId,
    after: RunId,
    as_json: Json = False,
) -> None:
    """Compare two runs over the rows that both have scored."""
    from consumer.evaluation.compare import compare as compared
    from consumer.evaluation.report import judged_of

    with opened_ledger() as engine:
        was, now = find_run(engine, before), find_run(engine, after)
        earlier = [judged_of(item) for item in items_of(engine, was.id)]
        later = [judged_of(item) for item in items_of(engine, now.id)]
    settings = now.report
    found = {"run": str(was.id)} | compared(
        earlier, later, settings["groups"], seed=settings["seed"], draws=settings["draws"]
    )
    if as_json:
        print_json(found)
    else:
        show_comparison(found)


def show_comparison(found: Mapping[str, Any]) -> None:
    """Differences, slices and flips for a person."""
    from consumer.evaluation.pages import TITLES, figure, p_value

    test, turned = found["mcnemar"], found["flips"]
    say(
        f"\nagainst {found['run']}: {found['paired_rows']} rows in both, {test['only_after']} gained, "
        f"{test['only_before']} lost, McNemar's exact p {p_value(test['p'])}"
    )
    for why, n in found["left_out"].items():
        talk(f"left out: {n} {why}")
    differences = (
        {
            "of": TITLES[name],
            "by": figure(name, each["value"]),
            "from": figure(name, each["lower95"]),
            "to": figure(name, each["upper95"]),
        }
        for name, each in found["differences"].items()
    )
    print_table(differences, {"of": "difference of", "by": "after - before", "from": "95 % from", "to": "to"})
    slices = (
        {"slice": name, **each, "p_holm": p_value(each["p_holm"])} for name, each in found["slices"].items()
    )
    print_table(
        slices,
        {"slice": "slice", "n": "n", "only_after": "gained", "only_before": "lost", "p_holm": "p by Holm"},
    )
    heads = {
        "row": "row",
        "label": "label",
        "is": "is",
        "category_before": "was for",
        "category_after": "is for",
        "uri": "image",
    }
    print_table(turned["rows"][:20], heads, style=lambda row: "red" if row["label"] != row["is"] else None)
    if (more := turned["gained"] + turned["lost"] - 20) > 0:
        talk(f"{more} more rows flipped; --json lists up to a thousand")


def _head(run: Run) -> dict[str, Any]:
    shown = (
        "id",
        "created_at",
        "created_by",
        "source",
        "data_sha256",
        "policy",
        "model",
        "weights_sha256",
        "template_mode",
    )
    return {name: getattr(run, name) for name in shown} | {"confusion": run.confusion, "metrics": run.metrics}


def _row(run: Run) -> dict[str, Any]:
    return {
        "id": str(run.id)[:8],
        "on": f"{run.created_at:%Y-%m-%d %H:%M}",
        "policy": run.policy,
        "model": run.model,
        "source": run.source,
        "scored": sum(run.confusion.values()),
        "balanced": _share(run, "balanced_accuracy"),
        "recall": _share(run, "recall"),
        "specificity": _share(run, "specificity"),
    }


def _share(run: Run, name: str) -> str | None:
    value = run.metrics[name]["value"]
    return None if value is None else f"{100 * value:.1f} %"
