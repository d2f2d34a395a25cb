"""A report's folder: report.json for programs, report.md and report.html for people, PNG plots."""

from pathlib import Path

from consumer.output_file import written_aside
from consumer.report.pages import markdown, web_page
from consumer.report.plots import draw_plots
from consumer.report.summary import Report
from moderation.errors import BadSetting


def write_report(report: Report, folder: Path) -> list[str] | None:
    """Write it and name the plots; None where there could be none, as matplotlib is not installed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise BadSetting(f"--with-report {folder}: {exc.strerror}") from exc
    plots = draw_plots(report, folder)
    pages = {
        "report.json": report.model_dump_json(indent=2) + "\n",
        "report.md": markdown(report, plots or ()),
        "report.html": web_page(report, plots or ()),
    }
    for name, text in pages.items():
        with written_aside(folder / name) as file:
            file.write(text.encode())
    return plots
