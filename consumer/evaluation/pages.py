"""An evaluation as a page for a browser: warnings first, one table, plots, slices, and what flipped as links."""

import base64
import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from consumer.evaluation.plots import draw
from consumer.evaluation.report import SHOWN, Evaluation, lookup
from consumer.output_file import written_aside
from moderation.errors import BadSetting

_MOST_ROWS = 200  # of a list; report.json has more
_LINKED = ("http://", "https://", "file://")
TITLES = {
    "recall": "recall (of the Unsafe, found)", "specificity": "specificity (of the Safe, passed)", "precision": "precision",
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "f1": "F1", "f2": "F2", "mcc": "MCC",
    "category_accuracy": "category as labelled", "per": "policy exceptions (PER)", "pes": "policy exception score (PES)",
    "flips.both": "paired flips, both right", "auroc": "AUROC", "auprc": "AUPRC",
    "recall_at_fpr_1": "recall at 1 % false alarms", "recall_at_fpr_5": "recall at 5 % false alarms",
    "ece": "calibration error (ECE)", "brier": "Brier", "log_loss": "log loss", "calibrated.ece": "calibrated: ECE",
    "calibrated.brier": "calibrated: Brier", "calibrated.log_loss": "calibrated: log loss",
    "band.abstained": "in the band that asks for a person", "band.error_outside": "wrong outside of the band",
    "unassessed": "without a verdict",
}  # fmt: skip
_RAW = frozenset(
    {
        "mcc",
        "brier",
        "log_loss",
        "ece",
        "auroc",
        "auprc",
        "calibrated.ece",
        "calibrated.brier",
        "calibrated.log_loss",
    }
)


def write_report(evaluation: Evaluation, comparison: Mapping[str, Any] | None, folder: Path) -> list[str]:
    """report.json, report.html and the plots; their names."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        plots = draw(evaluation, folder)
    except OSError as exc:
        raise BadSetting(f"--report {folder}: {exc.strerror}") from exc
    pages = {
        "report.json": evaluation.as_bytes,
        "report.html": web_page(evaluation, comparison, plots, folder).encode(),
    }
    for name, content in pages.items():
        with written_aside(folder / name) as file:
            file.write(content)
    return [*pages, *(name for name, _ in plots)]


def figure(name: str, value: float | None) -> str:
    """Shares in per cent, scores and losses as they are."""
    if value is None:
        return ""
    return f"{value:.3f}" if name in _RAW else f"{100 * value:.1f} %"


def p_value(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def table_rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Measure, value, 95 % interval, n, of all that the run has."""
    for name in SHOWN:
        found = lookup(metrics, name)
        if found and found["value"] is not None:
            yield TITLES[name], figure(name, found["value"]), _interval(name, found), f"{found['n']:,}"


def _interval(name: str, found: Mapping[str, Any]) -> str:
    if found["lower95"] is None:
        return ""
    lower, upper = figure(name, found["lower95"]), figure(name, found["upper95"])
    return f"{lower.removesuffix(' %')} to {upper}"


def web_page(
    evaluation: Evaluation,
    comparison: Mapping[str, Any] | None,
    plots: Sequence[tuple[str, str]],
    folder: Path,
) -> str:
    """One file without scripts that loads nothing: the plots are in it."""
    report = evaluation.document
    body = [f"<h1>{html.escape(report['policy']['ref'])}</h1>", _scope(evaluation)]
    if report["warnings"]:
        items = "".join(f"<li>{html.escape(line)}</li>" for line in report["warnings"])
        body.append(f'<section class="warn"><h2>Warnings</h2><ul>{items}</ul></section>')
    body += [
        "<h2>Measures</h2>",
        _table(("measure", "value", "95 % interval", "n"), table_rows(report["metrics"])),
    ]
    body.append(
        '<div class="plots">' + "".join(_plot(folder / name, title) for name, title in plots) + "</div>"
    )
    body += _slices(report["metrics"])
    if report["not_scored"]:
        rows = [(code, f"{n:,}") for code, n in report["not_scored"].items()]
        body += ["<h2>Not scored</h2>", _table(("code", "rows"), rows)]
    if comparison:
        body += _comparison(comparison)
    body += _wrong(evaluation)
    body += _provenance(evaluation)
    return _PAGE.format(title=html.escape(report["policy"]["ref"]), body="\n".join(body))


def _scope(evaluation: Evaluation) -> str:
    report = evaluation.document
    data = report["data"]
    models = ", ".join(sorted({str(one["model"]) for one in report["verdicts_of"]})) or "no model"
    return (
        f"<p>{report['scored']:,} of {data['rows']:,} labelled rows of <b>{html.escape(data['source'])}</b> scored, "
        f"judged by <b>{html.escape(models)}</b>. Positive is Unsafe. Run {evaluation.id}.</p>"
    )


def _plot(path: Path, title: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    said = html.escape(title)
    wide = ' class="wide"' if path.name == "slices.png" else ""
    return f'<figure{wide}><img src="data:image/png;base64,{data}" alt="{said}"><figcaption>{said}</figcaption></figure>'


def _slices(metrics: Mapping[str, Any]) -> list[str]:
    named = {"category": metrics.get("category", {}), **metrics.get("group", {})}
    parts = []
    for title, values in named.items():
        if not values:
            continue
        rows = [
            (
                name,
                f"{each['n']:,}",
                *(_with_interval(m, each[m]) for m in ("recall", "specificity", "balanced_accuracy")),
            )
            for name, each in values.items()
        ]
        head = (title, "rows", "recall", "specificity", "balanced accuracy")
        parts += [f"<h2>By {html.escape(title)}</h2>", _table(head, rows)]
    return parts


def _with_interval(name: str, found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "-"
    interval = _interval(name, found)
    return figure(name, found["value"]) + (f" ({interval})" if interval else "")


def _comparison(comparison: Mapping[str, Any]) -> list[str]:
    found = comparison["flips"]
    test = comparison["mcnemar"]
    said = (
        f"{comparison['paired_rows']:,} rows scored in both. {test['only_after']} gained, {test['only_before']} lost; "
        f"McNemar's exact p {p_value(test['p'])}. To Unsafe {found['to_unsafe']}, to Safe {found['to_safe']}."
    )
    differences = [
        (
            TITLES[name],
            figure(name, each["value"]),
            _interval(name, each) if each["lower95"] is not None else "",
        )
        for name, each in comparison["differences"].items()
        if each["value"] is not None
    ]
    slices = [
        (name, f"{each['n']:,}", str(each["only_after"]), str(each["only_before"]), p_value(each["p_holm"]))
        for name, each in comparison["slices"].items()
    ]
    flips = [
        (one["row"], one["label"], one["is"], one["category_before"] or "", one["category_after"] or "")
        for one in found["rows"][:_MOST_ROWS]
    ]
    links = [one["uri"] for one in found["rows"][:_MOST_ROWS]]
    return [
        f"<h2>Against run {html.escape(str(comparison['run']))}</h2><p>{html.escape(said)}</p>",
        _table(("difference of", "after minus before", "95 % interval"), differences),
        "<h3>Slices</h3>", _table(("slice", "rows", "gained", "lost", "p by Holm"), slices),
        "<h3>Flips, losses first</h3>",
        _table(("row", "label", "is", "category before", "category after"), flips, links),
    ]  # fmt: skip


def _wrong(evaluation: Evaluation) -> list[str]:
    """The errors, surest first, as links: pictures are not shown, since nobody asked to see them."""
    wrong = [row for row in evaluation.sample.scored if not row.right]
    wrong.sort(key=lambda row: (-abs((0.5 if row.p_unsafe is None else row.p_unsafe) - 0.5), row.row))
    rows = [
        (row.row, "Unsafe" if row.unsafe else "Safe", row.category or "", row.said or "",
         "" if row.p_unsafe is None else f"{row.p_unsafe:.3f}", str(row.assessment or ""))
        for row in wrong[:_MOST_ROWS]
    ]  # fmt: skip
    if not rows:
        return []
    head = ("row", "label", "label's category", "verdict's category", "P(unsafe)", "vetline explain")
    return [
        f"<h2>Verdicts against their label: {len(wrong):,}</h2>",
        _table(head, rows, [row.uri for row in wrong[:_MOST_ROWS]]),
    ]


def _provenance(evaluation: Evaluation) -> list[str]:
    report = evaluation.document
    rows = [
        ("data", report["data"]["sha256"]),
        ("policy text", report["policy"]["prompt_sha256"] or "each row its own"),
        *(("weights", f"{one['weights_sha256'] or 'not named'} ({one['template_mode']}, {one['verdicts']:,} verdicts)")
          for one in report["verdicts_of"]),
        ("statistics", f"{report['code']['sha256']} (vetline {report['code']['version']})"),
        ("seed, draws", f"{report['seed']}, {report['draws']:,}"),
    ]  # fmt: skip
    return ["<h2>What this rests on</h2>", _table(("what", "sha256"), rows)]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], links: Sequence[str] = ()) -> str:
    """links: of the first cell of each row."""
    lines = ["<table><tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
    for at, row in enumerate(rows):
        cells = [html.escape(cell) for cell in row]
        if at < len(links) and links[at].startswith(_LINKED):
            cells[0] = f'<a href="{html.escape(links[at])}" rel="noreferrer">{cells[0]}</a>'
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "".join(lines) + "</table>"


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Evaluation of {title}</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #24292f; max-width: 68rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.6rem; margin-bottom: .2rem }} h2 {{ font-size: 1.15rem; margin: 2rem 0 .5rem }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .3rem 0; display: block; overflow-x: auto }}
td, th {{ padding: .18rem .9rem .18rem 0; border-bottom: 1px solid #d0d7de; text-align: left; vertical-align: top }}
td {{ overflow-wrap: anywhere }} td:not(:last-child) {{ white-space: nowrap }}
.warn {{ border-left: 4px solid #b3403a; padding: .1rem 1rem; background: #fdf3f2 }}
.warn h2 {{ margin: .4rem 0; color: #9a1b1b }}
.plots {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; margin: 1.5rem 0 }}
figure {{ margin: 0 }} figure img {{ width: 100%; max-width: 36rem; height: auto }}
.wide {{ grid-column: 1 / -1 }} .wide img {{ max-width: 52rem }}
figcaption {{ color: #57606a; font-size: .9rem }}
</style>
{body}
</html>
"""
