"""requirements/*.txt: what they pin is what pyproject.toml allows, every file of it with its digest."""

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
HOLDS = {
    "dev.txt": ("worker", "cpu", "embedded", "parquet", "serve", "plots", "tracing", "dev"),
    "worker.txt": ("worker", "cpu", "parquet", "serve", "tracing"),
    "gpu.txt": ("worker", "parquet", "serve", "tracing", "gpu"),
}


@cache
def entries(lock: str) -> tuple[str, ...]:
    """One text for each pinned package: the requirement and its digests."""
    text = (ROOT / "requirements" / lock).read_text()
    joined = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return tuple(line for line in joined.splitlines() if line.strip())


def pins(lock: str) -> dict[str, list[str]]:
    """The versions of each package; several where markers choose between them."""
    found: dict[str, list[str]] = {}
    for entry in entries(lock):
        requirement = Requirement(entry.split(" --hash=")[0])
        (pin,) = requirement.specifier
        assert pin.operator == "==", entry
        found.setdefault(canonicalize_name(requirement.name), []).append(pin.version)
    return found


@pytest.mark.parametrize("lock", [*HOLDS, "build.txt"])
def test_every_package_is_pinned_with_digests(lock: str) -> None:
    assert entries(lock)
    for entry in entries(lock):
        assert re.search(r" --hash=sha256:[0-9a-f]{64}", entry), entry


@pytest.mark.parametrize("lock", [*HOLDS, "build.txt"])
def test_a_lock_names_no_place_to_download_from(lock: str) -> None:
    assert not re.search(r"://|^-", (ROOT / "requirements" / lock).read_text(), re.MULTILINE)


@pytest.mark.parametrize("lock", HOLDS)
def test_a_lock_fits_what_the_project_asks_for(lock: str) -> None:
    """Fails after a change of pyproject.toml until `make lock` was run."""
    asked = [*PROJECT["dependencies"], *(line for extra in HOLDS[lock] for line in EXTRAS[extra])]
    pinned = pins(lock)
    for requirement in map(Requirement, asked):
        versions = pinned.get(canonicalize_name(requirement.name))
        assert versions, f"{requirement.name} is not in {lock}: run `make lock`"
        assert all(requirement.specifier.contains(version, prereleases=True) for version in versions), (
            requirement
        )
