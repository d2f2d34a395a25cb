"""Renders a report for people: Markdown for a pull request or a data card, HTML for a browser. Names are escaped in both."""

import re
from collections.abc import Iterable, Sequence

from consumer.report.summary import Counts, Grouping, Report
from moderation.safe_text import for_html, for_terminal

_MOST_ROWS = 50  # of a table; report.json has more
_NOTE = (
    "Look at the groups that lose much before you delete anything: filtering has emptied classes of data sets "
    "without anybody noticing. What has no verdict is not Safe."
)
_GROUP_HEAD = ("", "total", "Safe", "Unsafe", "removed", "without a verdict", "")
Table = tuple[str, Sequence[str], list[list[str]]]


def markdown(report: Report, plots: Sequence[str]) -> str:
    """report.md. plots: names of PNG files beside it."""
    lines = ["# What the verdicts come to", "", _scope(report), "", _NOTE, ""]
    if report.warnings:
        lines += ["## Warnings", "", *(f"- {_plain(line)}" for line in report.warnings[:_MOST_ROWS]), ""]
    for title, head, rows in _tables(report):
        lines += [f"## {_plain(title)}", "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
        lines += [f"| {' | '.join(map(_plain, row))} |" for row in rows] + [""]
    lines += [f"![{name}]({name})" for name in plots]
    return "\n".join(lines).rstrip() + "\n"


def web_page(report: Report, plots: Sequence[str]) -> str:
    """report.html: one page without scripts, which loads nothing but the plots beside it."""
    body = [
        "<h1>What the verdicts come to</h1>",
        f"<p>{for_html(_scope(report))}</p>",
        f"<p>{for_html(_NOTE)}</p>",
    ]
    if report.warnings:
        items = "".join(f"<li>{for_html(line)}</li>" for line in report.warnings[:_MOST_ROWS])
        body.append(f'<h2>Warnings</h2><ul class="warn">{items}</ul>')
    for title, head, rows in _tables(report):
        body.append(f"<h2>{for_html(title)}</h2><table>{_row('th', head)}")
        body += [_row("td", row) for row in rows] + ["</table>"]
    body += [f'<img src="{for_html(name)}" alt="{for_html(name)}">' for name in plots]
    return _PAGE.format(body="\n".join(body))


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>What the verdicts come to</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse }} td, th {{ padding: .2rem .8rem; border-bottom: 1px solid #ccc; text-align: left }}
img {{ max-width: 100%; margin: 1rem 0 }} .warn {{ color: #9a1b1b }}
</style>
{body}
</html>
"""


def _scope(report: Report) -> str:
    chosen = ", ".join(f"{name} {value}" for name, value in report.chosen.items()) or "the whole ledger"
    return f"{report.counts.total} assessments ({chosen}), counted at {report.made_at:%Y-%m-%d %H:%M} UTC."


def _tables(report: Report) -> Iterable[Table]:
    yield "By rating", ("", "assessments", "of all"), _ratings(report.counts)
    yield (
        "By category",
        ("category", "rating", "verdicts"),
        [[c.name, c.rating, f"{c.n}"] for c in report.categories],
    )
    for grouping in (report.grouping, report.batches):
        if grouping:
            shown = min(len(grouping.shown), _MOST_ROWS)
            title = f"By {grouping.by}: {shown} of {grouping.groups}, those that lose most first"
            yield title, (grouping.by, *_GROUP_HEAD[1:]), _groups(grouping, report.warn_share)


def _ratings(counts: Counts) -> list[list[str]]:
    rows = {"Safe": counts.safe, "Unsafe": counts.unsafe}
    rows |= {
        f"no verdict: {state}": getattr(counts, state)
        for state in ("queued", "running", "failed", "cancelled")
    }
    shown = [[name, f"{n}", f"{n / counts.total:.1%}" if counts.total else ""] for name, n in rows.items()]
    return [*shown, ["needs review (among the verdicts)", f"{counts.needs_review}", ""]]


def _groups(grouping: Grouping, warn_share: float) -> list[list[str]]:
    return [
        [
            "(none)" if group.name is None else group.name,
            f"{group.total}",
            f"{group.safe}",
            f"{group.unsafe}",
            f"{group.share:.1%}",
            f"{group.without_verdict}",
            "EMPTIED" if group.emptied else "loses much" if group.share > warn_share else "",
        ]
        for group in grouping.shown[:_MOST_ROWS]
    ]


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{for_html(cell)}</{tag}>" for cell in cells) + "</tr>"


def _plain(text: str) -> str:
    """On one line, and nothing that Markdown would take for a table, a link or a tag."""
    one_line = for_terminal(" ".join(text.split()))
    return re.sub(r"([\\`*_\[\]<>|&])", r"\\\1", one_line)
