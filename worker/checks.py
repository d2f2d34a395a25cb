"""What `vetline doctor` says of one thing that it looked at."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    NOTE = "note"  # works, but one should know
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. advice: what to do about it."""

    name: str
    state: State
    says: str
    advice: str = ""
