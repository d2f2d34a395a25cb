"""Secrets in URIs reach the image's host, and no log line, error or redacted form."""

import re
import subprocess
import sys

CANARY = "c4n4ry"


def test_a_secret_in_a_thousand_uris_appears_nowhere() -> None:
    command = [sys.executable, "-m", "tests.support.canary_run", CANARY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = re.search(r"ENDS (\d+) REACHED (\d+)", done.stdout)
    assert summary is not None
    assert int(summary[1]) == 1000
    assert int(summary[2]) > 250, "many of them reached the host"
    assert done.stderr.count("\n") >= 1000, "each was logged"
    lines = [line for line in (done.stdout + done.stderr).splitlines() if CANARY in line.lower()]
    assert lines == []
