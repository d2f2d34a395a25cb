"""What `vetline doctor` says of one thing that it looked at."""

import re
from dataclasses import dataclass
from enum import StrEnum


class CheckState(StrEnum):
    OK = "ok"
    NOTE = "note"  # works, but one should know
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. advice: what to do about it."""

    name: str
    state: CheckState
    says: str
    advice: str = ""


def release(version: str) -> tuple[int, int]:
    """(13, 0) for "13.0.0" and for "13.0rc1"."""
    match = re.match(r"(\d+)(?:\.(\d+))?", version)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)
