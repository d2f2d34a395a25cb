"""The commands as a person meets them: what they print, and how they end when something is wrong."""

import json
import re
from pathlib import Path

import pytest

from moderation.assessment import Priority
from moderation.errors import NotFound
from moderation.ledger.engine import open_ledger
from moderation.ledger.outcomes import fail
from moderation.ledger.policies import seed_builtin
from moderation.verdict import Rating
from tests.support.commands import run
from tests.support.ledger import claimed, record, submitted, verdict

pytestmark = pytest.mark.usefixtures("services_env")


@pytest.fixture
def judged(postgres_url: str) -> dict[str, str]:
    """A ledger with one Safe, one Unsafe, one failed and one queued assessment; their ids by outcome."""
    engine = open_ledger(postgres_url)
    seed_builtin(engine)
    ids = {}
    for name, rating in (("safe", Rating.SAFE), ("unsafe", Rating.UNSAFE)):
        item = claimed(
            engine,
            submitted(
                engine,
                f"https://u:pw@images.test/{name}.jpg?token=s3cr3t",
                batch="b",
                key=f"upload-{name}",
                tenant="shop",
                priority=Priority.HIGH,
                metadata={"post": 7},
            ),
        )
        found = verdict(rating=rating, p_unsafe=0.61, p_unsafe_calibrated=0.437, needs_review=True)
        record(engine, item, found, worker="w1")
        ids[name] = str(item.id)
    failed = claimed(engine, submitted(engine, "https://images.test/gone.jpg", batch="b"))
    fail(engine, failed, NotFound("404 Not Found"), worker="w1", timings_ms={})
    ids |= {"failed": str(failed.id), "queued": str(submitted(engine, batch="b"))}
    engine.dispose()
    return ids


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["enqueue", "samples", "--policy", "no-such"], 2, "no policy 'no-such'"),
        (["enqueue", "samples", "--policy", "llavaguard-default@9"], 2, "no policy"),
        (["enqueue", "no-such-folder"], 2, "no such file or folder: no-such-folder"),
        (["enqueue", "samples", "--priority", "urgent"], 2, "priority must be high, normal or low"),
        (["explain", "not-an-id"], 2, "is not an assessment's id"),
        (["explain", "01a209ff-2fdb-740b-b519-169510a8ad94"], 1, "no assessment"),
        (["retry"], 2, "say which: an ID, --code, --batch, --policy, --tenant, --host, an age, or --all"),
        (["cancel"], 2, "say which: an ID, --batch, --policy, --tenant, --host, an age, or --all"),
        (["verdicts", "--fail-on", "blue"], 2, "--fail-on takes unsafe"),
        (["no-such-command"], 2, "No such command"),
        (["worker", "--judge", "oracle"], 2, "judge"),
    ],
)
def test_a_mistake_is_one_clear_line(
    tmp_path: Path, judged: dict[str, str], words: list[str], code: int, said: str
) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "a.jpg").write_bytes(b"x")
    ended = run(tmp_path, *words)
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("variable", "url", "said"),
    [
        ("DATABASE_URL", "postgresql://u:pw@127.0.0.1:1/x", "Postgres: connection failed"),
        ("DATABASE_URL", "mysql://127.0.0.1/x", "must be a Postgres URL"),
        ("DATABASE_URL", "://", "not a database URL"),
        ("DATABASE_URL", "postgresql://u:pw@one:1,two:1/x", "?host=one:5432&host=two:5432"),
        ("REDIS_URL", "http://127.0.0.1", "not a Redis URL"),
    ],
)
def test_a_service_that_is_not_there_is_one_clear_line_without_its_password(
    tmp_path: Path,
    judged: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    url: str,
    said: str,
) -> None:
    monkeypatch.setenv(variable, url)
    ended = run(tmp_path, "enqueue", "https://images.test/1.jpg")
    assert ended.returncode in {2, 75}
    assert said in ended.stderr
    assert "pw" not in ended.stderr.replace("password", "")
    assert "Traceback" not in ended.stderr


def test_without_redis_what_is_enqueued_is_accepted(
    tmp_path: Path, judged: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    ended = run(tmp_path, "enqueue", "https://images.test/1.jpg", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"accepted": 1, "known": 0, "cancelled": 0, "refused": 0}


def test_a_ledger_without_tables_says_what_to_do(
    tmp_path: Path, empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_postgres_url)
    assert "vetline db upgrade" in run(tmp_path, "status").stderr
    assert run(tmp_path, "status").returncode == 75
    assert run(tmp_path, "db", "upgrade").returncode == 0
    assert run(tmp_path, "status").returncode == 0


def test_lines_on_stdin_are_enqueued_and_bad_ones_named(tmp_path: Path, judged: dict[str, str]) -> None:
    lines = "https://images.test/a.jpg\n\n# a comment\nftp://images.test/b.jpg\nhttps://images.test/c.jpg\n"
    first = run(tmp_path, "enqueue", "-", "--json", stdin=lines)
    assert first.returncode == 3
    told = json.loads(first.stdout)
    assert (told["accepted"], told["known"], told["refused"]) == (2, 0, 1)
    assert "line 4: uri: an image URI starts with" in first.stderr
    assert json.loads(Path(told["refused_file"]).read_text())["line"] == 4
    good = lines.replace("ftp://images.test/b.jpg\n", "")
    again = run(tmp_path, "enqueue", "-", "--json", stdin=good)
    assert json.loads(again.stdout) == {"accepted": 0, "known": 2, "cancelled": 0, "refused": 0}


def test_what_reads_shows_the_same_to_people_and_programs(tmp_path: Path, judged: dict[str, str]) -> None:
    status = json.loads(run(tmp_path, "status", "--batch", "b", "--json").stdout)
    assert status["states"] == {"queued": 1, "running": 0, "done": 2, "failed": 1, "cancelled": 0}
    shown = run(tmp_path, "status").stdout
    assert "done 2" in shown
    assert "failed 1" in shown
    rows = [json.loads(line) for line in run(tmp_path, "verdicts", "--format", "jsonl").stdout.splitlines()]
    assert [row["rating"] for row in rows] == ["Safe", "Unsafe"]
    table = run(tmp_path, "verdicts", "--unsafe")
    assert "unsafe.jpg" in table.stdout
    assert "/safe.jpg" not in table.stdout
    assert run(tmp_path, "verdicts", "--format", "csv").stdout.startswith("id,uri,policy")
    everything = "".join(
        run(tmp_path, *words).stdout for words in (["verdicts", "--json"], ["failed", "--json"])
    )
    assert "s3cr3t" not in everything
    assert "pw@" not in everything


def test_fail_on_unsafe_is_an_exit_code(tmp_path: Path, judged: dict[str, str]) -> None:
    assert run(tmp_path, "verdicts", "--fail-on", "unsafe").returncode == 4
    assert run(tmp_path, "verdicts", "--fail-on", "unsafe", "--batch", "none").returncode == 0


def test_the_story_of_an_image_says_what_it_was_submitted_with_and_how_sure_the_judge_was(
    tmp_path: Path, judged: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VETLINE_FLOWER_URL", "https://flower.test/watch")
    told = run(tmp_path, "explain", judged["unsafe"]).stdout
    assert "batch b, priority high, tenant shop, key upload-unsafe" in told
    assert 'metadata {"post":7}' in told
    assert f"in Flower: https://flower.test/watch/task/{judged['unsafe']}" in told
    assert "verdict: Unsafe, NA: None applying, needs review" in told
    assert "P(unsafe) 0.610, 0.437 calibrated" in told
    plain = run(tmp_path, "explain", judged["queued"]).stdout
    assert "batch b, priority normal\n" in plain
    assert "metadata" not in plain


def test_what_failed_is_counted_listed_explained_and_retried(tmp_path: Path, judged: dict[str, str]) -> None:
    at = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    row = rf"^1\s+not_found\s+images\.test\s+{at}\s+{at}\s*$"
    assert re.search(row, run(tmp_path, "failed").stdout, re.MULTILINE)
    assert "nothing failed that these filters mean" in run(tmp_path, "failed", "--code", "notfound").stderr
    told = run(tmp_path, "explain", judged["failed"], "--policy-text").stdout
    assert re.search(r"attempt 1 failed by w1: not_found: 404", told)
    assert "Provide a safety assessment" in told
    story = json.loads(run(tmp_path, "explain", judged["unsafe"], "--json").stdout)
    assert story["verdict"]["rating"] == "Unsafe"
    assert story["policy_text"].startswith("Provide a safety assessment")
    dry = run(tmp_path, "retry", "--code", "not_found", "--dry-run", "--json")
    assert json.loads(dry.stdout) == {"would_be_retried": 1}
    assert json.loads(run(tmp_path, "retry", "--code", "not_found", "--json").stdout) == {"retried": 1}
    dry = run(tmp_path, "cancel", "--batch", "b", "--dry-run", "--json")
    assert json.loads(dry.stdout) == {"would_be_cancelled": 2}
    assert json.loads(run(tmp_path, "cancel", "--batch", "b", "--json").stdout) == {"cancelled": 2}
