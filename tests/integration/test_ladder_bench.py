"""The benchmark of the ladder, small: its own checks must hold, and must be able to fail."""

from collections import Counter
from dataclasses import replace

from bench.ladder import faults, judge_all, make_items, measure, rules_of, scripted_server


def test_every_item_ends_as_a_verdict_or_malformed_answer() -> None:
    result = measure(count=200, malformed=0.3, threads=16)
    assert result["faults"] == []
    assert sum(result["ends"].values()) == 200
    assert set(result["ends"]) <= {"strict", "salvage", "reseed", "greedy", "grammar", "malformed_answer"}
    assert result["ends"]["strict"] == 200 - result["malformed_first_answers"]
    assert result["malformed_first_answers"] > 30


def test_a_verdict_against_the_truth_and_an_item_that_fails_otherwise_are_found() -> None:
    items = make_items(6, 0.0)
    rules = [rule for item in items for rule in rules_of(item)]
    rules.insert(0, {"when": {"image": items[0].sha256}, "do": {"kind": "error", "error": "internal"}})
    with scripted_server(rules) as url:
        ends = judge_all(url, items, threads=2)
    assert Counter(end.name for end in ends) == {"strict": 5, "runtime_fault": 1}
    assert len(faults(ends)) == 1
    other = {"Safe": "Unsafe", "Unsafe": "Safe"}
    turned = [replace(end, item=replace(end.item, rating=other[end.item.rating])) for end in ends]
    assert len(faults(turned)) == 6
