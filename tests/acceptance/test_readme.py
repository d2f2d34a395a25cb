"""The first screen of the README, run as written, in a copy of the project with no environment."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".vetline", "__pycache__", ".*_cache", ".hypothesis", ".cache", ".gpu"
)
INSTALL_S = 400  # a cold start downloads some 150 MB


def first_screen() -> list[str]:
    """The commands of the shell blocks before the first section, in order."""
    text = (ROOT / "README.md").read_text().partition("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where other accounts may enter, as one clones: Postgres does not run as root, and pytest's folders are closed."""
    with tempfile.TemporaryDirectory(prefix="vetline-readme-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.timeout(INSTALL_S + 200)
def test_the_first_screen_does_what_it_says(folder: Path) -> None:
    copy = folder / "vetline"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("VETLINE_", "VIRTUAL_ENV"))
    }
    demo, up, others = first_screen()

    def run(script: str, timeout_s: float) -> str:
        said = subprocess.run(
            ["bash", "-eu", "-c", script],
            cwd=copy,
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert said.returncode == 0, said.stdout[-3000:] + said.stderr[-3000:]
        return said.stdout

    shown = run(demo, INSTALL_S)
    names = [path.stem for path in (copy / "samples").iterdir() if path.suffix != ".md"]
    assert len(names) >= 8
    assert all(name in shown for name in names), shown
    assert "Safe" in shown

    running = subprocess.Popen(["bash", "-c", "exec " + up], cwd=copy, env=env, start_new_session=True)
    try:
        wait_for((copy / ".vetline" / "run.json").exists, timeout_s=60, what="vetline up")
        # The demo judged these photographs in another batch; this one is new to the ledger.
        run(others, 60)
        status = f"{copy}/.venv/bin/vetline status --batch first"
        wait_for(lambda: f"done {len(names)}" in run(status, 30), timeout_s=90, every_s=1, what="verdicts")
        assert all(name in run(others, 60) for name in names)
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 130
