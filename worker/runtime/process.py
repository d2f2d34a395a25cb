"""A process of the runtime with all that it starts: what it says is kept, and none of it outlives us."""

import re
import signal
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import structlog

from moderation.services.child import ChildProcess
from worker.runtime.diagnosis import BROKEN_POOL

log = structlog.get_logger()

_KEPT_LINES = 200  # a traceback of SGLang's processes has some 60
_CHATTER = re.compile(r"(?:Prefill|Decode) batch")  # several lines a second at full load
_LONGEST_LINE = 500  # characters; it logs its whole configuration in one line


class RuntimeProcess:
    """Leads a process group of its own. If we end, however that comes, the whole group is killed."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        name: str = "sglang",
        secret: str | None = None,
    ) -> None:
        """secret: what must not reach the log; SGLang logs its whole configuration."""
        self._name = name
        self._secret = secret
        self.last_line = ""
        self.alarms = 0  # lines so far that tell of a broken pool of image workers
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._child = ChildProcess(
            argv, stop_signal=signal.SIGKILL, env=environment, cwd=Path.cwd(), whole_group=True
        )
        self.pid = self._child.pid
        self._reader = threading.Thread(target=self._read, name=f"{name}-output", daemon=True)
        self._reader.start()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it. What it left behind is killed."""
        return self._child.exit_code

    def last_lines(self) -> list[str]:
        """Its last lines, once what is on the way has been read."""
        if self.exit_code is not None:
            self._reader.join(timeout=1.0)
        return list(self._lines)

    def forget(self) -> None:
        """What it has said so far: how it started tells nothing of how it ends."""
        self._lines.clear()

    def stop(self, *, within_s: float) -> None:
        """SIGTERM, and SIGKILL to the whole group within_s later or once it has ended. Returns when all are gone."""
        family = self._family()
        self._child.stop([signal.SIGTERM], patience_s=within_s)
        self.kill(family)

    def kill(self, family: Sequence[psutil.Process] | None = None) -> None:
        """SIGKILL to the whole group, and to those who have left it for one of their own."""
        family = self._family() if family is None else family
        self._child.stop([signal.SIGKILL])
        for process in family:
            try:
                process.kill()  # psutil compares start times: a number that was given away is left alone
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family, timeout=5)

    def memory_mib(self) -> int:
        """Of the process and all that it started; pages that they share count for each."""
        total = 0
        for process in self._family():
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total >> 20

    def pids(self) -> set[int]:
        return {process.pid for process in self._family()}

    def _family(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _read(self) -> None:
        with self._child.output as output:
            for raw in output:
                if line := self._cleaned(raw):
                    self._note(line)

    def _cleaned(self, raw: bytes) -> str:
        line = raw.decode(errors="replace").rstrip()
        return (line.replace(self._secret, "***") if self._secret else line)[:_LONGEST_LINE]

    def _note(self, line: str) -> None:
        if _CHATTER.search(line):
            log.debug("runtime_said", source=self._name, line=line)
            return
        self._lines.append(line)
        self.last_line = line
        self.alarms += BROKEN_POOL.search(line) is not None
        log.info("runtime_said", source=self._name, line=line)
