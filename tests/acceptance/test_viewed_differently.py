"""A picture that people see otherwise than it is stored: the verdict says so, and a policy sends it to a person."""

import csv
import io
import json
import struct
from pathlib import Path
from typing import Any

from moderation.ledger.engine import transaction
from moderation.ledger.policies import add_revision
from moderation.policy.file import load_policy
from tests.acceptance.conftest import System
from tests.support import viewed_pngs
from tests.support.commands import run
from tests.support.ledger import POLICY
from tests.support.pictures import chunk, encode
from tests.support.viewed_content import CONTENT

CAREFUL = """\
policy: careful
title: Pictures that are seen differently go to a person
review_views_differ: 40
"""


def darkened(folder: Path) -> str:
    """A photograph that browsers show nearly black."""
    head, *rest = viewed_pngs.parts(encode(CONTENT, "PNG"))
    path = folder / "dark.png"
    path.write_bytes(viewed_pngs.file(head, chunk(b"gAMA", struct.pack("!I", 2_000)), *rest))
    return f"file://{path}"


def answered(system: System, *words: str) -> str:
    done = run(system.folder, *words, env=system.env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_viewed_differently_is_told_everywhere_and_goes_to_a_person(system: System) -> None:
    with transaction(system.engine) as connection:
        add_revision(connection, load_policy(CAREFUL, source="careful.yaml"), by="anna", reason="evasions")
    system.worker()
    uri = darkened(system.folder)
    usual = system.client.submit(system.image("usual"), "careful")
    reviewed, noted = (system.client.submit(uri, policy) for policy in ("careful", POLICY))
    system.wait_for_counts(done=3)

    verdicts: dict[str, dict[str, Any]] = {
        str(ticket.id): json.loads(answered(system, "explain", str(ticket.id), "--json"))["verdict"]
        for ticket in (usual, reviewed, noted)
    }
    found = [verdicts[str(ticket.id)] for ticket in (usual, reviewed, noted)]
    assert [verdict["needs_review"] for verdict in found] == [False, True, False]
    assert [verdict["review_reasons"] for verdict in found] == [None, ["views_differ"], None]
    assert found[0]["views_differ"] is None
    assert min(found[1]["views_differ"], found[2]["views_differ"]) > 80

    told = answered(system, "explain", str(reviewed.id))
    assert "viewed differently: its views differ by" in told
    assert "needs review for: views_differ" in told
    feed = [json.loads(line) for line in answered(system, "feed").splitlines()]
    assert {row["assessment_id"]: row["views_differ"] for row in feed} == {
        id_: verdict["views_differ"] for id_, verdict in verdicts.items()
    }
    exported = list(csv.DictReader(io.StringIO(answered(system, "verdicts", "--format", "csv"))))
    assert {row["id"]: row["review_reasons"] for row in exported}[str(reviewed.id)] == "views_differ"
