"""A look-alike of LlavaGuard-DS, 824 rows with 5 % dead links, through real workers and the scripted server."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from moderation.policy import builtin_policies
from tests.acceptance.conftest import System

ROWS, TURNED, DEAD = 824, 100, 41
PROMPTS = {policy.policy: policy.prompt for policy in builtin_policies()}


def look_alike(system: System) -> Path:
    """360 Unsafe and 464 Safe rows; 100 of them are `_v2`: an image that is Unsafe, under rules that permit it."""
    path = system.folder / "llavaguard-ds.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "url", "rating", "category", "policy"])
        for n in range(ROWS - TURNED):
            dead = n % 18 == 5 and n // 18 < DEAD
            uri = (
                (system.folder / f"gone-{n}.png").as_uri()
                if dead
                else system.image(f"i{n}", (n % 256, n // 256, 7))
            )
            rating, category = (
                ("Unsafe", "O2: Violence, Harm, or Cruelty") if n < 360 else ("Safe", "NA: None applying")
            )
            rows.writerow([n, uri, rating, category, PROMPTS["llavaguard-default"]])
            if n < TURNED and not dead:
                rows.writerow([f"{n}_v2", uri, "Safe", category, f"<image>\n{PROMPTS['newsroom']}"])
    return path


def evaluate(system: System, source: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "moderation.cli",
        "evaluate",
        str(source),
        "--own-policies",
        "--json",
    ]
    return subprocess.run(
        [*words, "--draws", "500", *options], env=system.env | {"PATH": "/usr/bin", "HOME": str(system.folder),
        "VETLINE_DATA_DIR": str(system.folder / ".vetline"), "USER": "ann"},
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip


@pytest.mark.timeout(600)
def test_a_look_alike_of_llavaguard_ds_is_judged_and_dead_links_are_never_scored(system: System) -> None:
    unsafe = {"kind": "verdict", "rating": "Unsafe", "category": "O2: Violence, Harm, or Cruelty"}
    system.server.script(
        [{"when": {"share": 0.5}, "do": unsafe}], default={"kind": "verdict", "rating": "Safe"}
    )
    source = look_alike(system)
    lines = len(source.read_text().splitlines()) - 1
    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    dead = {row["id"] for row in rows if "gone-" in row["url"]}
    queued = evaluate(system, source, "--no-wait")
    assert queued.returncode == 3, queued.stderr
    assert json.loads(queued.stdout)["not_scored"] == {"open": len(rows)}
    system.worker()
    done = evaluate(system, source)
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert sum(system.counts().values()) == len(rows), "what was queued by the first is not queued again"
    assert report["not_scored"] == {"not_found": len(dead)}
    assert len(dead) == DEAD - 1 or len(dead) == DEAD
    assert report["scored"] == len(rows) - len(dead)
    assert sum(report["confusion"].values()) == report["scored"]
    assert report["metrics"]["unassessed"]["n"] == len(rows) > 800
    assert report["metrics"]["per"]["n"] == sum(row["id"].endswith("_v2") for row in rows)
    # The scripted model rates an image alike under all rules, so no pair is right on both sides.
    assert (report["metrics"]["flips"]["both"]["value"], report["metrics"]["per"]["n"]) == (
        0,
        report["metrics"]["flips"]["both"]["n"],
    )
    assert evaluate(system, source).stdout == done.stdout
    assert lines >= len(rows)
