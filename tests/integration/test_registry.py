"""The registry of policies: what is added stays, under whose name and why; what is retired takes nothing new."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import click.testing
import pytest
import typer
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from moderation.cli.policy import commands
from moderation.errors import BadSetting, BadSource, PolicyError, UnknownPolicy
from moderation.ledger.policies import load_revision, pin
from moderation.ledger.registry import add, entries, find, retire
from moderation.policy import PolicyRevision, builtin_policies, load_policy
from tests.support.ledger import claimed, record, row, submitted, verdict

FILE = "policy: city-news\ntitle: City news desk\ncategories:\n  O2: non-violating\n"
EDITED = FILE + "  O5: sensitive\n"

Run = Callable[..., click.testing.Result]


def policy(text: str = FILE) -> PolicyRevision:
    return load_policy(text, source="city-news.yaml")


def numbered(number: int, text: str = FILE) -> PolicyRevision:
    return policy(text.replace("title", f"revision: {number}\ntitle"))


def test_a_file_without_a_number_gets_the_next_with_who_when_and_why(ledger: Engine) -> None:
    assert add(ledger, policy(), by="anna").policy.ref == "city-news@1"
    assert add(ledger, policy(EDITED), by="ben", reason="after the trial").policy.ref == "city-news@2"
    first, second = entries(ledger, "city-news")
    assert (first.created_by, first.reason, first.current) == ("anna", "first revision", False)
    assert (second.created_by, second.reason, second.current) == ("ben", "after the trial", True)
    assert first.created_at < second.created_at
    assert find(ledger, "city-news").content.prompt == policy(EDITED).prompt
    assert find(ledger, "city-news@1").content.prompt == policy().prompt


def test_what_stands_already_is_not_added_twice(ledger: Engine) -> None:
    add(ledger, policy(), by="anna")
    for same in (policy(), numbered(1)):
        again = add(ledger, same, by="ben")
        assert (again.policy.ref, again.new) == ("city-news@1", False)
    assert [entry.created_by for entry in entries(ledger, "city-news")] == ["anna"]


def test_going_back_to_an_earlier_text_is_a_new_revision(ledger: Engine) -> None:
    add(ledger, policy(), by="anna")
    add(ledger, policy(EDITED), by="anna", reason="trial")
    assert add(ledger, policy(), by="anna", reason="the trial failed").policy.ref == "city-news@3"


@pytest.mark.parametrize(
    ("number", "problem"),
    [(1, "stands with other content"), (3, "stands with other content"), (2, "is past")],
)
def test_a_number_that_is_taken_or_past_is_refused_and_the_next_free_one_named(
    ledger: Engine, number: int, problem: str
) -> None:
    add(ledger, policy(), by="anna")
    add(ledger, numbered(3), by="anna", reason="the numbers of another installation")
    record(ledger, claimed(ledger, submitted(ledger, policy="city-news@1")), verdict(), worker="w1")
    with pytest.raises(PolicyError, match=rf"city-news@{number} {problem}.* next free revision is 4"):
        add(ledger, numbered(number, EDITED), by="ben", reason="typo")
    assert [entry.revision for entry in entries(ledger, "city-news")] == [1, 3]


def test_a_change_without_a_reason_is_refused(ledger: Engine) -> None:
    add(ledger, policy(), by="anna")
    with pytest.raises(PolicyError, match="city-news@2 changes a policy: say why"):
        add(ledger, policy(EDITED), by="anna")


def test_two_people_who_add_at_once_get_two_numbers(ledger: Engine) -> None:
    texts = [f"{FILE}note: {n}\n" for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        refs = pool.map(lambda text: add(ledger, policy(text), by="anna", reason="race").policy.ref, texts)
        assert sorted(refs) == [f"city-news@{n}" for n in range(1, 9)]


def test_a_policy_that_the_runtime_has_no_room_for_is_refused(ledger: Engine) -> None:
    long = FILE + "  O10: {name: Own, can: [" + "xyz " * 2500 + "]}\n"
    with pytest.raises(PolicyError, match="shorten its bullets"):
        add(ledger, policy(long), by="anna")
    assert entries(ledger, "city-news") == []


def test_a_retired_policy_takes_nothing_new_and_what_was_submitted_is_still_judged(ledger: Engine) -> None:
    add(ledger, policy(), by="anna")
    waiting = submitted(ledger, policy="city-news")
    assert retire(ledger, "city-news") == ["city-news@1"]
    assert retire(ledger, "city-news") == []
    for ref in ("city-news", "city-news@1"):
        with pytest.raises(UnknownPolicy, match=f"{ref} takes no new images: it was retired on "):
            pin(ledger, [ref])
    taken = claimed(ledger, waiting)
    assert load_revision(ledger, taken.policy_revision_id) == find(ledger, "city-news").content
    record(ledger, taken, verdict(), worker="w1")
    assert row(ledger, waiting)["state"] == "done"


def test_a_retired_revision_leaves_the_one_before_it_current_and_an_added_one_brings_a_policy_back(
    ledger: Engine,
) -> None:
    add(ledger, policy(), by="anna")
    add(ledger, policy(EDITED), by="anna", reason="trial")
    assert retire(ledger, "city-news@2") == ["city-news@2"]
    assert pin(ledger, ["city-news"])["city-news"].ref == "city-news@1"
    assert retire(ledger, "city-news") == ["city-news@1"]
    assert add(ledger, policy(), by="anna", reason="needed after all").policy.ref == "city-news@3"
    assert pin(ledger, ["city-news"])["city-news"].ref == "city-news@3"
    with pytest.raises(UnknownPolicy, match="no policy 'no-such'"):
        retire(ledger, "no-such")


def test_who_added_a_revision_when_and_why_cannot_be_changed(ledger: Engine) -> None:
    for change in ("title = 'x'", "created_by = 'x'", "created_at = now()", "reason = 'x'"):
        with ledger.connect() as connection, pytest.raises(DBAPIError, match="append-only"):
            connection.execute(text(f"UPDATE policy_revision SET {change}"))


# --- the command


@pytest.fixture
def run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`vetline policy WORDS` in a folder with files, and no ledger. Errors of the tree come out as they are raised."""
    app = typer.Typer()
    app.add_typer(commands)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    (tmp_path / "city-news.yaml").write_text(FILE)
    (tmp_path / "edited.yaml").write_text(EDITED)
    (tmp_path / "broken.yaml").write_text("policy: broken\n")
    (tmp_path / "latin1.yaml").write_bytes("policy: caf\xe9\n".encode("latin1"))
    return lambda *words: CliRunner().invoke(app, ["policy", *words], catch_exceptions=False)


@pytest.fixture
def run(run_alone: Run, ledger: Engine, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The same with a ledger."""
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    return run_alone


def test_a_policy_is_added_shown_listed_and_rendered(run: Run) -> None:
    added = run("add", "edited.yaml", "--by", "anna")
    assert (added.stdout, added.stderr.splitlines()[-1]) == ("", "added city-news@1")
    assert added.stderr.startswith("warning: O5: Criminal Planning: the sensitive state")
    assert run("add", "edited.yaml", "--by", "anna").stderr.endswith("stands already, with this content\n")
    shown = run("show", "city-news")
    assert shown.stdout.startswith("city-news@1  City news desk  (current)\nadded on ")
    assert re.search(
        r"^O2: Violence, Harm, or Cruelty \(non-violating\)\n  should not: ", shown.stdout, re.MULTILINE
    )
    assert "warning: O5" in shown.stderr
    assert re.search(r"^city-news +1 +current +City news desk +anna ", run("list").stdout, re.MULTILINE)
    rendered = run("render", "city-news@1").stdout_bytes
    assert rendered == policy(EDITED).prompt.encode()
    assert sha256(rendered).hexdigest() in shown.stdout


def test_programs_get_the_same_as_json(run: Run) -> None:
    added = run("add", "edited.yaml", "--by", "anna", "--json")
    told = json.loads(added.stdout)
    assert (told["policy"], told["added"], len(told["warnings"])) == ("city-news@1", True, 1)
    assert json.loads(run("add", "edited.yaml", "--json").stdout)["added"] is False
    run("add", "city-news.yaml", "--by", "ben", "--reason", "crime is news")
    listed = {f"{row['policy']}@{row['revision']}": row for row in json.loads(run("list", "--json").stdout)}
    assert set(listed) == {p.ref for p in builtin_policies()} | {"city-news@1", "city-news@2"}
    assert (listed["city-news@2"]["created_by"], listed["city-news@2"]["reason"]) == ("ben", "crime is news")
    assert [listed[ref]["current"] for ref in ("city-news@1", "city-news@2")] == [False, True]
    shown = json.loads(run("show", "city-news@1", "--json").stdout)
    assert (shown["revision"], shown["categories"][4]["state"], shown["retired_at"]) == (1, "sensitive", None)
    assert json.loads(run("render", "city-news", "--json").stdout)["prompt"] == policy().prompt
    assert json.loads(run("retire", "city-news", "--json").stdout) == {
        "retired": ["city-news@1", "city-news@2"]
    }
    assert json.loads(run("show", "city-news", "--json").stdout)["retired_at"] is not None


def test_the_login_name_signs_where_nobody_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "carla")
    run("add", "city-news.yaml")
    assert json.loads(run("show", "city-news", "--json").stdout)["created_by"] == "carla"


def test_a_revision_and_a_file_are_compared(run: Run) -> None:
    run("add", "city-news.yaml")
    compared = run("diff", "city-news", "edited.yaml").stdout.splitlines()
    assert compared == ["city-news@1 -> edited.yaml", "O5: Criminal Planning: default -> sensitive"]
    told = json.loads(run("diff", "newsroom", "city-news", "--json").stdout)
    assert (told["before"], told["after"], told["same_prompt"]) == ("newsroom@1", "city-news@1", False)
    assert [change["category"] for change in told["changed"]] == ["O9: Disasters or Emergencies"]


def test_two_files_are_compared_without_a_ledger(run_alone: Run) -> None:
    assert "default -> sensitive" in run_alone("diff", "city-news.yaml", "edited.yaml").stdout


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["add", "no-such.yaml"], BadSource, "no policy file 'no-such.yaml': No such file"),
        (["add", "broken.yaml"], PolicyError, "broken.yaml:1: title: is missing"),
        (["add", "latin1.yaml"], PolicyError, "is not UTF-8"),
        (["add", "city-news.yaml", "--by", " "], BadSetting, "--by is empty"),
        (["add", "city-news.yaml", "--reason", "a\nb"], BadSetting, "--reason holds a line break"),
        (["diff", "city-news.yaml", "No-Such"], BadSource, "no policy file 'No-Such'"),
    ],
)
def test_a_mistake_is_named_before_a_ledger_is_looked_for(
    run_alone: Run, words: list[str], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=re.escape(said)):
        run_alone(*words)


def test_a_policy_that_is_not_there_is_named(run: Run) -> None:
    for words in (
        ["show", "no-such"],
        ["render", "no-such@3"],
        ["diff", "newsroom", "no-such"],
        ["retire", "no-such"],
    ):
        with pytest.raises(UnknownPolicy, match="no policy 'no-such"):
            run(*words)
