"""Logs of a process of ours: what libraries warn of is in them, in their form."""

import json
import subprocess
import sys

WARNS = """
import warnings
from moderation.log import configure_logging
configure_logging()
warnings.warn("You're running the worker with superuser privileges\\nUser information: uid=0\\n", RuntimeWarning)
"""


def test_a_warning_of_a_library_is_one_line_of_json() -> None:
    """As Celery's, to whoever runs a worker as root."""
    ran = subprocess.run(
        [sys.executable, "-W", "always", "-c", WARNS], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    (line,) = ran.stderr.splitlines()
    told = json.loads(line)
    assert (told["event"], told["level"], told["category"]) == ("python_warning", "warning", "RuntimeWarning")
    assert told["message"].startswith("You're running the worker")
    assert told["message"].endswith("uid=0")
