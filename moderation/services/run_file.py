"""The run file: what a running `vetline up` tells the other commands in its folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from moderation.errors import Misuse
from moderation.services.folder import owned_folder, private_text
from moderation.services.lock import FileLock, is_taken


class RunFile(BaseModel):
    """Kept in run.json, readable to its owner alone: the URLs hold passwords."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    started_at: datetime
    database_url: str
    redis_url: str
    flower_url: str | None = None


def read_run_file(data_dir: Path) -> RunFile | None:
    """What the `vetline up` of this folder said; None where none runs, whatever file one left behind."""
    if not is_taken(data_dir / "run.lock"):
        return None
    try:
        return RunFile.model_validate_json((data_dir / "run.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


@contextmanager
def keep_run_file(data_dir: Path, announcement: RunFile) -> Iterator[None]:
    """Announce for the length of the block. Raises Misuse where another `vetline up` runs in this folder."""
    owned_folder(data_dir)
    run_json = data_dir / "run.json"
    with FileLock(data_dir / "run.lock") as lock:
        if not lock.try_take():
            raise Misuse(f"a `vetline up` is running in this folder already (see {run_json})")
        private_text(run_json, announcement.model_dump_json(indent=2) + "\n")
        try:
            yield
        finally:
            run_json.unlink(missing_ok=True)
