"""The logits of the two rating tokens, handed out where an answer's rating is drawn. Imports nothing of SGLang.

The names and numbers here are what the judge reads by (worker/judges/generation.py and probability.py); they are written
twice because nothing of the judge may come into SGLang's processes.
"""

from typing import Any

KEY = "vetline_rating_logits"  # in meta_info: for each output token [safe, unsafe], or null where no rating was drawn
SAFE_ID, UNSAFE_ID = 25663, 78770  # "Safe" and "Unsafe" in Qwen2's vocabulary


class RatingLogits:
    """One step's column of `customized_info`: SGLang takes entry i for request i once the step's copies have arrived.

    rows: (requests, 3) float32 on the host: the token drawn, and the logits of "Safe" and of "Unsafe" before it was drawn.
    It is read only when the first entry is taken, because a copy from the GPU may still be under way before.
    """

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self._read: list[list[float]] | None = None

    def __getitem__(self, request: int) -> tuple[float, float] | None:
        if self._read is None:
            self._read = self._rows.tolist()
        token, safe, unsafe = self._read[request]
        return (safe, unsafe) if token in (SAFE_ID, UNSAFE_ID) else None
