"""`vetline metrics` as a process."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def exporter(*options: str) -> Iterator[str]:
    """The URL of a running `vetline metrics`."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moderation.cli", "metrics", "--port", "0", *options],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    with process:
        try:
            assert process.stderr is not None
            said = next(line for line in process.stderr if "metrics: " in line)
            found = re.search(r"http://\S+", said)
            assert found
            yield found[0]
        finally:
            process.terminate()
