"""The names of the metrics: stable, told in docs/metrics.md as they are, and known to every dashboard and alert."""

import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

import moderation.ledger_collector  # noqa: F401 - describes the ledger's
from moderation.assessment import Ticket
from moderation.ledger.submit import new_id
from moderation.metrics import DESCRIBED, Described, category_id, count_tickets, runtime_is

DOCS = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
EACH = pytest.mark.parametrize("metric", DESCRIBED, ids=[metric.name for metric in DESCRIBED])


def told_in_docs() -> dict[str, tuple[str, str, str]]:
    rows = re.findall(r"^\| `(vetline_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", DOCS, re.MULTILINE)
    return {name: (kind, labels, meaning) for name, kind, labels, meaning in rows}


def test_the_docs_tell_every_metric_and_no_other() -> None:
    expected = {m.name: (m.kind, ", ".join(f"`{label}`" for label in m.labels), m.help) for m in DESCRIBED}
    assert told_in_docs() == expected


@EACH
def test_a_name_says_its_kind_and_unit(metric: Described) -> None:
    assert re.fullmatch(r"vetline_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    if metric.kind == "histogram":
        assert metric.name.endswith("_seconds")
    assert not {"id", "uri", "batch", "host", "le"} & set(metric.labels)


def test_no_name_is_given_twice() -> None:
    names = [metric.name for metric in DESCRIBED]
    assert len(set(names)) == len(names)


def test_every_metric_of_a_process_is_in_the_default_registry() -> None:
    there = {metric.name for metric in REGISTRY.collect()}
    for metric in DESCRIBED:
        if metric.where != "ledger":
            assert metric.name.removesuffix("_total") in there


def test_a_submission_is_counted_by_policy_and_whether_its_key_was_known() -> None:
    def value(name: str) -> float:
        return REGISTRY.get_sample_value(name, {"policy": "counted"}) or 0.0

    count_tickets([Ticket(new_id(), "counted@3", known=known) for known in (False, True, False)])
    assert value("vetline_accepted_total") == 2
    assert value("vetline_known_total") == 1


@pytest.mark.parametrize(
    ("category", "label"),
    [("O4: Nudity Content", "O4"), ("NA: None applying", "NA"), ("", "NA"), ("x" * 500, "x" * 8)],
)
def test_a_label_holds_a_category_s_number_and_not_a_policy_s_words(category: str, label: str) -> None:
    assert category_id(category) == label


def test_a_runtime_is_in_one_state_at_a_time() -> None:
    known = ("starting", "ready", "restarting")
    for state in known:
        runtime_is(state, known)
        shown = {k: REGISTRY.get_sample_value("vetline_runtime_state", {"state": k}) for k in known}
        assert shown == {k: float(k == state) for k in known}
