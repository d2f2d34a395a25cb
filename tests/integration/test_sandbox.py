"""What code that took a decoder over would find: nothing."""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"),
    reason="no seccomp filter for it",
)

ATTEMPTS = {
    "open a file": "open('/etc/passwd')",
    "write a file": "open('/tmp/taken-over', 'w')",
    "list a folder": "os.listdir('/')",
    "look at a file": "os.stat('/etc/passwd')",
    "open a socket": "socket.socket()",
    "make a pair of sockets": "socket.socketpair()",
    "run a program": "os.execv('/bin/true', ['true'])",
    "fork": "os.fork()",
    "signal its parent": "os.kill(os.getppid(), 0)",
    "change its user": "os.setuid(0)",
    "delete a file": "os.unlink('/tmp/taken-over')",
    "change folder": "os.chdir('/tmp')",
    "limit its parent": "resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0))",
    "make a pipe": "os.pipe()",
}

CHILD = """
    import os, resource, socket, threading
    from intake import sandbox
    assert sandbox.enter()
    try:
        {attempt}
        print("done")
    except PermissionError:
        print("denied")
    thread = threading.Thread(target=lambda: print("threads work"))
    thread.start()
    thread.join()
"""


def run(attempt: str) -> list[str]:
    script = textwrap.dedent(CHILD).format(attempt=attempt)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.split("\n")


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_a_sandboxed_process_cannot(attempt: str) -> None:
    assert run(attempt)[:2] == ["denied", "threads work"]


@pytest.mark.parametrize("attempt", ["sum(bytearray(50_000_000))", "sandbox.limit_cpu(5)", "os.urandom(8)"])
def test_a_sandboxed_process_can(attempt: str) -> None:
    assert run(attempt)[0] == "done"
