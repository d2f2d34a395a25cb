"""What SGLang's errors mean, whatever shape a release gives them."""

import json
import subprocess
import sys
from typing import Any

import pytest

from moderation.errors import JudgeTimeout, RequestRefused, RuntimeFault, RuntimeUnavailable
from worker.judges.sglang_faults import Busy, DuplicateRid, abort_of, error_of, message_of


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "said so"}},
        {"error": "said so"},
        {"object": "error", "message": "said so", "type": "503", "code": 503},
        {"detail": "said so"},
        "said so",
    ],
)
def test_the_message_is_found_in_every_shape(body: Any) -> None:
    assert message_of(json.dumps(body).encode()) == "said so"


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[" * 100_000, b"a\nb" * 1000, b'{"error": null}', b"7"])
def test_any_body_gives_one_short_line(body: bytes) -> None:
    found = message_of(body)
    assert found
    assert "\n" not in found
    assert len(found) <= 300


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "The input (20480 tokens) is longer", RequestRefused),
        (400, "Duplicate request ID detected: ab", DuplicateRid),
        (413, "too large", RequestRefused),
        (422, "unprocessable", RequestRefused),
        (401, "Unauthorized", RuntimeUnavailable),
        (404, "Not Found", RuntimeUnavailable),
        (408, "timeout", Busy),
        (429, "slow down", Busy),
        (503, "The request queue is full.", Busy),
        (503, "Request running timeout reached.", JudgeTimeout),
        (500, "Internal Server Error", RuntimeFault),
        (502, "Bad Gateway", RuntimeFault),
        (307, "moved", RuntimeFault),
    ],
)
def test_status_and_message_give_the_cause(status: int, message: str, kind: type) -> None:
    assert type(error_of(status, message.encode())) is kind


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ({"type": "abort", "message": "Abort before prefill", "status_code": None}, RuntimeFault),
        ({"type": "abort"}, RuntimeFault),
        ({"type": "abort", "message": "The request queue is full.", "status_code": 503}, Busy),
        ({"type": "abort", "message": "too long", "status_code": 400}, RequestRefused),
    ],
)
def test_abort_inside_a_200_means_what_its_status_says(reason: dict[str, Any], kind: type) -> None:
    assert type(abort_of(reason)) is kind


def test_the_judge_loads_neither_celery_nor_sql_nor_a_model() -> None:
    heavy = ("celery", "sqlalchemy", "sqlmodel", "psycopg", "torch", "sglang", "PIL", "numpy", "redis")
    code = f"import sys, worker.judges.sglang; print([m for m in {heavy!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
