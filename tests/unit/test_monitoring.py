"""Dashboards and alerts: they parse, and every metric and label in them is one that Vetline has."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

import moderation.ledger_collector  # noqa: F401 - describes the ledger's metrics
from moderation.metrics import DESCRIBED, Described

INFRA = Path(__file__).parents[2] / "infra"
ALERTS: dict[str, Any] = yaml.safe_load((INFRA / "prometheus" / "alerts.yml").read_text())
DASHBOARD: dict[str, Any] = json.loads((INFRA / "grafana" / "dashboards" / "vetline.json").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [rule["expr"] for rule in RULES] + [t["expr"] for p in PANELS for t in p["targets"]]
METRICS = {metric.name: metric for metric in DESCRIBED}
_AGGREGATED = r"\b(?:by|without|on|ignoring) \(([^)]*)\)"


def parsed(expression: str) -> Any:
    return promql_parser.parse(expression.replace("$__rate_interval", "5m"))


def selectors(node: Any) -> Iterator[Any]:
    """Every vector selector in a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "vector_selector"):
        if (inner := getattr(node, name, None)) is not None:
            yield from selectors(inner)
    for inner in getattr(node, "args", None) or ():
        yield from selectors(inner)


def metric_of(name: str) -> Described:
    """The metric behind a series. Raises KeyError where there is none."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return METRICS[base if base in METRICS and METRICS[base].kind == "histogram" else name]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_metrics_and_labels_that_there_are(expression: str) -> None:
    found = list(selectors(parsed(expression)))
    assert found
    labels = {"le", "instance", "job"}
    for selector in found:
        metric = metric_of(selector.name)
        matched = {matcher.name for matcher in selector.matchers.matchers}
        assert matched <= {*metric.labels, "instance", "job"}, selector.name
        labels |= set(metric.labels)
    grouped = {label.strip() for group in re.findall(_AGGREGATED, expression) for label in group.split(",")}
    assert grouped - {""} <= labels


def test_the_check_itself_refuses_a_metric_that_there_is_not() -> None:
    (selector,) = selectors(parsed("rate(vetline_invented_total[5m])"))
    with pytest.raises(KeyError):
        metric_of(selector.name)
    with pytest.raises(ValueError, match=r"unclosed|expected|unexpected|invalid"):
        parsed("sum by (rating) (rate(vetline_verdicts_total[5m])")


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_what_is_wrong_what_is_next_and_how_urgent_it_is(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "next"}


def test_counters_are_shown_as_rates() -> None:
    for expression in EXPRESSIONS:
        for selector in selectors(parsed(expression)):
            if metric_of(selector.name).kind == "counter":
                assert re.search(rf"(rate|increase)\({selector.name}(\{{[^}}]*\}})?\[", expression), (
                    expression
                )


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {
        metric_of(s.name).name for p in PANELS for t in p["targets"] for s in selectors(parsed(t["expr"]))
    }
    assert shown == set(METRICS)


def test_panels_have_a_title_a_place_and_the_provisioned_source() -> None:
    source = yaml.safe_load((INFRA / "grafana/provisioning/datasources/prometheus.yml").read_text())
    (provisioned,) = source["datasources"]
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert panel["title"]
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, f"{panel['title']} covers another panel"
        taken |= cells
        assert {t["datasource"]["uid"] for t in panel["targets"]} == {provisioned["uid"]}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: apt install prometheus)")
@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", "alerts.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
        ("test", "rules", "alerts.test.yml"),
    ],
)
def test_promtool_agrees(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *words], cwd=INFRA / "prometheus", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
