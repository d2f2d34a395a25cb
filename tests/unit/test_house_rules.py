"""The rules of the house that a machine can hold: sizes of files, names of classes, pages, links and the changelog."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("consumer", "intake", "moderation", "producer", "vetline", "worker")
# Everything that is ours; what is installed, built or kept beside it is not.
FOLDERS = (*PACKAGES, "bench", "docs", "infra", "requirements", "samples", "tests")
LONGEST = 400  # lines
# Two classes of one name are one idea, each in the form that its place needs.
SAME_NAME = {
    "Verdict": "what the API answers is the ledger's verdict, as JSON that stays",
}
# In text, a path of ours: a folder of ours, and a name with an ending.
PATH = re.compile(
    rf"(?<![\w/.])((?:{'|'.join(FOLDERS)})/[\w./-]*\.(?:py|md|yml|yaml|json|svg|png|acl|sh|sql|txt|toml))\b"
)
LINK = re.compile(r"(?<!`)\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.*)$", re.MULTILINE)
VERSION = re.compile(r"Unreleased|\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d")
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def files(pattern: str) -> list[Path]:
    below = (path for folder in FOLDERS for path in (ROOT / folder).rglob(pattern))
    return sorted([*ROOT.glob(pattern), *(path for path in below if "__pycache__" not in path.parts)])


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def text(path: Path) -> str:
    return path.read_text()


def packages_below(folder: Path) -> Iterator[Path]:
    yield from (path.parent for path in folder.rglob("__init__.py"))


@pytest.mark.parametrize("path", files("*.py"), ids=shown)
def test_a_file_has_at_most_400_lines(path: Path) -> None:
    assert len(text(path).splitlines()) <= LONGEST, "split it: it holds more than one thing"


def test_no_class_name_stands_twice_among_the_packages() -> None:
    places = defaultdict(list)
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(text(path))):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(shown(path))
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in twice.items() if name not in SAME_NAME} == {}
    assert SAME_NAME.keys() <= twice.keys(), "a name that stands once needs no leave"


def test_the_index_links_every_page_of_the_docs() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(text(index))}
    wanted = {path for path in files("*.md") if path.parent == index.parent or "infra" in path.parts} - {
        index
    }
    wanted |= {ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")}
    wanted.add(ROOT / "bench" / "gpu" / "NOTES.md")
    assert {shown(path) for path in wanted - linked} == set()


def test_the_architecture_names_every_folder_of_the_packages() -> None:
    page = text(ROOT / "ARCHITECTURE.md")
    folders = [folder for package in PACKAGES for folder in packages_below(ROOT / package)]
    folders += [path for path in (ROOT / "bench").iterdir() if (path / "__init__.py").exists()]
    named = {folder for folder in folders if re.search(rf"\b{folder.name}/", page)}
    # Alembic and SGLang ask for these; they are part of the folder above.
    named |= {folder for folder in folders if folder.parent.name in {"migrations", "plugin"}}
    assert {shown(folder) for folder in folders} - {shown(folder) for folder in named} == set()


@pytest.mark.parametrize("page", files("*.md"), ids=shown)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(text(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page if not name else page.parent / unquote(name)
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", [page for page in files("*.md") if page.name != "CHANGELOG.md"], ids=shown)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    assert [name for name in PATH.findall(text(page)) if not (ROOT / name).exists()] == []


def test_every_bare_file_name_of_the_architecture_is_there() -> None:
    """In the picture and in tables a file in a folder that was just named goes by its name alone."""
    names = set(re.findall(r"(?<![\w/])(\w+\.py)\b", text(ROOT / "ARCHITECTURE.md")))
    assert names - {path.name for path in files("*.py")} == set()


def test_the_changelog_has_versions_groups_and_something_new() -> None:
    sections = re.split(r"^## ", text(ROOT / "CHANGELOG.md"), flags=re.MULTILINE)[1:]
    headings = [section.partition("\n")[0] for section in sections]
    assert [heading for heading in headings if not VERSION.fullmatch(heading)] == []
    assert headings[0] == "Unreleased"
    released = [tuple(map(int, heading.split(" ")[0].split("."))) for heading in headings[1:]]
    assert released == sorted(released, reverse=True)
    assert re.search(r"^- \S", sections[0], re.MULTILINE), "what users notice since the last release"
    for section in sections:
        assert set(re.findall(r"^### (.*)$", section, re.MULTILINE)) <= KINDS


def test_the_version_of_the_package_is_the_newest_that_was_released() -> None:
    version = re.search(r'^version = "(.*)"$', text(ROOT / "pyproject.toml"), re.MULTILINE)
    newest = re.search(r"^## (\d\S*)", text(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert version is not None
    assert newest is not None
    assert version[1] == newest[1]


@cache
def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings: lower case, no punctuation, dashes for spaces."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text(page)))
    return {heading.strip().replace(" ", "-") for heading in plain}
