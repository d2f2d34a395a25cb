"""A real `vetline serve`, and how to talk to it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from producer.serve.tokens import Role, issue
from tests.support.waiting import wait_for

_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")


class RunningApi:
    """One process that listens on a free port of loopback, with a token for each role, or with none."""

    def __init__(self, folder: Path, env: dict[str, str], *options: str, open_to_all: bool = False) -> None:
        self.tokens_file = folder / "tokens"
        self.tokens = {role: issue(self.tokens_file, f"the-{role}", role) for role in Role}
        self.log = folder / "door.log"
        plain = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        chosen = ["--no-tokens"] if open_to_all else ["--tokens", str(self.tokens_file)]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moderation.cli", "serve", "--port", "0", *chosen, *options],
                env=plain | {"VETLINE_LOG_STYLE": "json", "VETLINE_DATA_DIR": str(folder)} | env,
                stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        found = wait_for(self._url, timeout_s=60, what="the door")
        self.http = httpx.Client(base_url=found, timeout=30, trust_env=False)
        self.url = found

    def submit(self, body: Any, *, role: Role = Role.SUBMIT, **headers: str) -> httpx.Response:
        return self.http.post("/v1/assessments", json=body, headers=self.bearer(role) | headers)

    def get(self, path: str, *, role: Role = Role.READ) -> httpx.Response:
        return self.http.get(path, headers=self.bearer(role))

    def bearer(self, role: Role) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[role]}"}

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.http.close()
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(40)

    def __enter__(self) -> "RunningApi":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _url(self) -> str | None:
        text = self.log.read_text()
        assert self.process.poll() is None, text
        found = re.search(r"listening on (http://\S+)", text)
        return found[1] if found and self._answers(found[1]) else None

    @staticmethod
    def _answers(url: str) -> bool:
        try:
            return httpx.get(url + "/live", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False
