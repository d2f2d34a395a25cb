"""Draws docs/states.svg, the states of an assessment and what moves it from one to the next.

python docs/draw_states.py
"""

from dataclasses import dataclass
from pathlib import Path

from moderation.assessment import State

PICTURE = Path(__file__).with_name("states.svg")
_SIZE = (920, 430)
_BOX = (120, 46)
_CENTRES = {
    State.QUEUED: (170, 150),
    State.RUNNING: (560, 150),
    State.DONE: (830, 80),
    State.FAILED: (830, 250),
    State.CANCELLED: (90, 290),
}
_FILLS = {State.DONE: "#dcefe0", State.FAILED: "#f6dedb", State.CANCELLED: "#ececec"}


@dataclass(frozen=True, slots=True)
class Move:
    """before: None for a row that is new. where: the file whose statements do it. path, at: of the arrow and its words."""

    before: State | None
    after: State
    where: str
    words: tuple[str, ...]
    path: str
    at: tuple[int, int]


MOVES = (
    Move(None, State.QUEUED, "moderation/ledger/submit.py", ("submit",), "M 20 150 L 108 150", (62, 140)),
    Move(
        State.QUEUED,
        State.RUNNING,
        "moderation/ledger/claim.py",
        ("claim: attempt + 1, charged + 1,", "lease until now + 30 s"),
        "M 205 126 C 280 70, 450 70, 526 125",
        (365, 52),
    ),
    Move(
        State.RUNNING,
        State.QUEUED,
        "moderation/ledger/outcomes.py",
        ("try later: charged, due after a delay", "give back: uncharged"),
        "M 499 150 L 233 150",
        (366, 125),
    ),
    Move(
        State.RUNNING,
        State.QUEUED,
        "moderation/ledger/sweep.py",
        ("lease ran out: crashes + 1", "(failed, at ten crashes)"),
        "M 525 174 C 460 215, 290 215, 208 176",
        (372, 226),
    ),
    Move(
        State.RUNNING,
        State.DONE,
        "moderation/ledger/record.py",
        ("record: the verdict, if the attempt", "is still the row's"),
        "M 610 126 C 660 95, 690 80, 767 80",
        (660, 52),
    ),
    Move(
        State.RUNNING,
        State.FAILED,
        "moderation/ledger/outcomes.py",
        ("fail: a permanent error,", "five charged attempts, poison"),
        "M 621 160 C 690 170, 730 190, 790 226",
        (776, 150),
    ),
    Move(
        State.FAILED,
        State.QUEUED,
        "moderation/ledger/retry.py",
        ("retry: a fresh count of attempts, all history kept",),
        "M 800 274 C 680 400, 260 400, 182 176",
        (500, 382),
    ),
    Move(
        State.QUEUED, State.CANCELLED, "moderation/ledger/retry.py", ("cancel",), "M 145 174 L 102 265", (88, 222)
    ),
)  # fmt: skip


def draw() -> str:
    """The picture as SVG."""
    width, height = _SIZE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"',
        ' font-family="Helvetica, Arial, sans-serif" font-size="13" text-anchor="middle">',
        "<title>The states of an assessment</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M 0 0 L 8 4 L 0 8 z" fill="#444"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for move in MOVES:
        parts.append(f'<path d="{move.path}" fill="none" stroke="#444" marker-end="url(#head)"/>')
        x, y = move.at
        for line, word in enumerate(move.words):
            parts.append(f'<text x="{x}" y="{y + 16 * line}" fill="#222">{word}</text>')
    for state, (x, y) in _CENTRES.items():
        fill, (wide, high) = _FILLS.get(state, "#e3eaf6"), _BOX
        parts.append(
            f'<rect x="{x - wide // 2}" y="{y - high // 2}" width="{wide}" height="{high}" rx="8"'
            f' fill="{fill}" stroke="#444"/>'
        )
        parts.append(f'<text x="{x}" y="{y + 5}" font-size="16" font-weight="bold">{state}</text>')
    parts.append(f'<text x="{width // 2}" y="{height - 14}" fill="#555">Done and cancelled are final.</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw())
