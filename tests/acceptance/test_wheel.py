"""The wheel in an environment of its own: what is in it, what an import of it loads, and that the demo runs from it."""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.test_directions import EXTRAS, HEAVY

ROOT = Path(__file__).parents[2]
PACKAGES = {"consumer", "intake", "moderation", "producer", "vetline", "worker"}
UV = Path(sys.executable).with_name("uv")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True, slots=True)
class Installed:
    """The wheel, and an environment that it was installed into without extras. empty: a folder to run commands in."""

    wheel: Path
    environment: Path
    empty: Path

    def add_extra(self, extra: str) -> None:
        self._install(f"vetline[{extra}] @ {self.wheel.as_uri()}")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """With nothing of this test's own environment; words: a program of the environment and its arguments."""
        program, *rest = words
        env = {"PATH": os.environ["PATH"], "HOME": str(self.empty)}
        return subprocess.run(
            [str(self.environment / "bin" / program), *rest],
            cwd=self.empty,
            env=env,
            capture_output=True,
            text=True,
            timeout=200,
        )

    def _install(self, what: str) -> None:
        command = [str(UV), "pip", "install", "--quiet", "-c", str(ROOT / "requirements" / "dev.txt"), what]
        env = os.environ | {"VIRTUAL_ENV": str(self.environment)}
        subprocess.run(command, env=env, check=True, capture_output=True, timeout=400)


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    """Where other accounts may enter: Postgres does not run as root, and pytest's folders are closed."""
    with tempfile.TemporaryDirectory(prefix="vetline-wheel-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        empty = folder / "empty"
        empty.mkdir()
        subprocess.run(
            [str(UV), "build", "--quiet", "--wheel", "--no-build-isolation", "--out-dir", str(folder), str(ROOT)],
            check=True,
            timeout=120,
        )  # fmt: skip
        (wheel,) = folder.glob("*.whl")
        venv.create(folder / "venv", with_pip=False)
        found = Installed(wheel, folder / "venv", empty)
        found._install(wheel.as_uri())
        yield found


def test_the_wheel_holds_the_six_packages_and_no_other(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert not [name for name in names if name.endswith(".pyc")]


def test_an_import_of_the_client_loads_nothing_heavy(installed: Installed) -> None:
    done = installed.run("python", "-X", "importtime", "-c", "from vetline import Client")
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert {"vetline", "producer"} <= loaded
    assert loaded & (HEAVY | EXTRAS | {"worker", "consumer", "intake", "celery", "kombu"}) == set()


def test_the_demo_runs_with_the_extras_that_it_asks_for(installed: Installed) -> None:
    """It names one at a time, until nothing is missing."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named: list[str] = []
    while (done := installed.run("vetline", "demo", str(ROOT / "samples"))).returncode:
        asked = re.search(r"pip install 'vetline\[(\w+)\]'", done.stderr)
        assert asked is not None, done.stderr
        assert asked[1] not in named, "it is there now"
        assert asked[1] in extras
        named.append(asked[1])
        installed.add_extra(asked[1])
    assert set(named) == {"embedded", "worker", "cpu"}
    photographs = [path.stem for path in (ROOT / "samples").iterdir() if path.suffix != ".md"]
    assert all(name in done.stdout for name in photographs), done.stdout
    assert f"{len(photographs)} images: {len(photographs)} Safe" in done.stderr
