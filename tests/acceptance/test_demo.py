"""`vetline demo`: sample photographs through the real path, and what goes wrong said in one line."""

import shutil
import signal
from pathlib import Path

import pytest

from moderation.errors import Misuse
from moderation.ledger import counters
from moderation.ledger.engine import open_ledger
from moderation.services.resolve import resolve
from producer import Client
from tests.support.commands import Running, nothing_runs_in, run
from tests.support.waiting import wait_for
from worker.host.child_processes import file_root, prepare

SAMPLES = Path(__file__).parents[2] / "samples"
PHOTOGRAPHS = sorted(path.name for path in SAMPLES.iterdir() if path.suffix != ".md")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new folder, as a user has it who has set nothing."""
    monkeypatch.delenv("VETLINE_DATA_DIR")
    home = tmp_path / "home"
    home.mkdir()
    return home


def test_the_demo_prints_a_verdict_for_each_sample_and_a_second_run_knows_them(home: Path) -> None:
    first = run(home, "demo", str(SAMPLES))
    assert first.returncode == 0, first.stderr
    heads = [line for line in first.stdout.splitlines() if not line.startswith(" ")]
    assert [head.split()[0] for head in heads] == PHOTOGRAPHS
    for head in heads:
        assert "  Safe  NA: None applying" in head
        assert all(f"{step} " in head for step in ("fetch", "decode", "judge"))
    assert first.stdout.count("were not looked at") == len(PHOTOGRAPHS)
    assert f"{len(PHOTOGRAPHS)} new, 0 known" in first.stderr
    wait_for(lambda: nothing_runs_in(home), timeout_s=5)

    second = run(home, "demo", str(SAMPLES))
    assert second.returncode == 0, second.stderr
    assert f"0 new, {len(PHOTOGRAPHS)} known" in second.stderr
    assert second.stdout.count("(known: fetch") == len(PHOTOGRAPHS)
    assert nothing_runs_in(home)

    shown = run(home, "verdicts", "--json")
    assert shown.stdout.count('"rating":"Safe"') == len(PHOTOGRAPHS)


def test_a_text_file_named_jpg_fails_in_one_line_beside_the_others(home: Path) -> None:
    mixed = home / "mixed & äöü"
    mixed.mkdir()
    shutil.copy(SAMPLES / "cat.jpg", mixed)
    (mixed / "letter.jpg").write_text("Dear Sir or Madam,\n" * 50)
    ran = run(home, "demo", str(mixed))
    assert ran.returncode == 3, ran.stderr
    assert "cat.jpg  Safe" in ran.stdout
    (told,) = [line for line in ran.stdout.splitlines() if line.startswith("letter.jpg")]
    assert "failed: unsupported_type" in told
    assert "1 Safe, 0 Unsafe, 1 failed" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_folder_that_is_not_there_is_said_in_one_line(home: Path) -> None:
    ran = run(home, "demo", "nowhere")
    assert ran.returncode == 2
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert "nowhere" in line
    assert nothing_runs_in(home)


def test_a_folder_that_no_worker_could_be_given_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="comma"):
        file_root(tmp_path / "a, b")


def test_the_demo_does_not_judge_what_waits_for_another_judge(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    with resolve(need_redis=False) as services:
        prepare(services)
        with Client(services.database_url) as client:
            client.submit((SAMPLES / "cat.jpg").as_uri(), "llavaguard-default")
        ran = run(home, "demo", str(SAMPLES))
        engine = open_ledger(services.database_url)
        assert counters.counts(engine) == {"queued": 1}
        engine.dispose()
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert "1 images wait" in line


def test_ctrl_c_ends_the_demo_in_one_line_and_leaves_nothing_running(home: Path) -> None:
    with Running(home, "demo", str(SAMPLES)) as demo:
        log = home / ".vetline" / "demo.log"
        wait_for(lambda: log.exists() or demo.process.poll() is not None, timeout_s=60)
        demo.process.send_signal(signal.SIGINT)
        assert demo.ended() == 130
        told = [line for line in demo.lines if "interrupted" in line]
        assert len(told) == 1
        assert not any("Traceback" in line for line in demo.lines)
    wait_for(lambda: nothing_runs_in(home), timeout_s=5)
