"""Plain clients' messages as bytes: what a row is made of, and the reason where none is."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from moderation.assessment import Priority
from moderation.celery_message import (
    MAX_MESSAGE_BYTES,
    MessageRejected,
    Named,
    PlainSubmission,
    Ring,
    read_message,
)
from tests.support.plain_client import body, celery_node_1, celery_node_2, celery_php, gocelery, protocol_2

URI, POLICY = "https://images.test/a.jpg", "llavaguard-default"
ROW = "018f0000-0000-7000-8000-000000000001"


def read(message: Any, *, step: int = 0) -> tuple[Named, Any]:
    raw = message if isinstance(message, bytes) else json.dumps(message).encode()
    return read_message(raw, size=len(raw), step=step)


def submission(message: Any, *, step: int = 0) -> Any:
    _, found = read(message, step=step)
    assert isinstance(found, PlainSubmission), found
    return found.submission


def asked(**more: Any) -> dict[str, Any]:
    return protocol_2(kwargs={"uri": URI, "policy": POLICY}, **more)


@pytest.mark.parametrize("write", [celery_node_1, celery_node_2, gocelery, celery_php])
def test_what_other_clients_write_is_a_submission(write: Callable[[str, str], bytes]) -> None:
    found = submission(write(URI, POLICY))
    assert (found.uri, found.policy, found.priority) == (URI, POLICY, Priority.NORMAL)
    assert found.key.startswith("celery:")
    assert len(found.key) < 60, "the client's own id, and no digest"


def test_python_by_name_and_by_place() -> None:
    assert submission(asked(task_id="t1")).key == "celery:t1"
    named, _ = read(asked(task_id="t1"))
    assert (named.task_id, named.uri, named.policy) == ("t1", URI, POLICY)
    assert submission(protocol_2([URI, POLICY])).uri == URI
    assert submission(protocol_2([None, URI, POLICY])).uri == URI, "as the task was called in 0.1"
    assert submission(protocol_2([URI], {"policy": POLICY})).policy == POLICY


@pytest.mark.parametrize(
    ("priority", "step", "wanted"),
    [(0, 0, "NORMAL"), (3, 3, "NORMAL"), (5, 3, "NORMAL"), (6, 6, "LOW"), (9, 9, "LOW"), (0, 9, "LOW")],
)
def test_celerys_priorities_are_mapped(priority: int, step: int, wanted: str) -> None:
    assert submission(asked(priority=priority), step=step).priority.name == wanted


def test_eta_and_expiry_are_columns() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=5)
    found = submission(asked(eta=soon.isoformat(), expires=(soon + timedelta(hours=1)).isoformat()))
    assert (found.not_before, found.expires_at) == (soon, soon + timedelta(hours=1))
    naive = submission(asked(eta="2030-01-01T00:00:00"))
    assert naive.not_before == datetime(2030, 1, 1, tzinfo=UTC)


def test_the_previous_releases_messages_ring_their_rows() -> None:
    _, found = read(protocol_2(kwargs={"id": ROW, "uri": "s3://…", "policy": "p@1"}, vetline_more=[ROW]))
    assert isinstance(found, Ring)
    assert [str(id_) for id_ in found.ids] == [ROW, ROW]


def but(**parts: Any) -> dict[str, Any]:
    return asked() | parts


def header(**more: Any) -> dict[str, Any]:
    return asked(**more)


_DEEP = b"[" * 100_000 + b"]" * 100_000
REJECTED: list[tuple[str, Any, str]] = [
    ("empty", b"", "not_json"),
    ("text", b"hello", "not_json"),
    ("not utf-8", b"\xff\xfe{}", "not_json"),
    ("deep", _DEEP, "not_json"),
    ("nan", b"NaN", "not_json"),
    ("digits", b"1" * 10_000, "not_json"),
    ("half a surrogate", rb'{"body": "\ud800"}', "not_json"),
    ("null", b"null", "not_a_message"),
    ("list", b"[]", "not_a_message"),
    ("number", b"5", "not_a_message"),
    ("headers a list", but(headers=[1]), "not_a_message"),
    ("headers a number", but(headers=5), "not_a_message"),
    ("properties a text", but(properties="x"), "not_a_message"),
    ("body a number", but(body=5), "bad_body"),
    ("no body", but(body=None), "bad_body"),
    ("bad base64", but(body="%%%"), "bad_body"),
    ("not ascii", but(body="ü"), "bad_body"),
    ("no JSON inside", but(body=base64.b64encode(b"{").decode()), "bad_body"),
    ("deep inside", but(body=base64.b64encode(b"[" * 5_000 + b"]" * 5_000).decode()), "bad_body"),
    ("a text inside", but(body=body("x")), "bad_body"),
    ("one element", but(body=body([[]])), "bad_body"),
    ("another body encoding", but(properties={"body_encoding": "hex"}), "bad_body"),
    ("pickle", but(**{"content-type": "application/x-python-serialize"}), "content_type"),
    ("yaml", but(**{"content-type": "application/x-yaml"}), "content_type"),
    ("msgpack", but(**{"content-type": "application/x-msgpack"}), "content_type"),
    ("utf-16", but(**{"content-encoding": "utf-16"}), "content_encoding"),
    ("gzip", header(compression="application/x-gzip"), "compressed"),
    ("a dict as compression", header(compression={"a": 1}), "compressed"),
    ("another task", protocol_2(kwargs={}, task="tasks.add"), "unknown_task"),
    ("a task of Celery's", protocol_2([], {}, task="celery.backend_cleanup"), "unknown_task"),
    ("a dict as task", header(task={"a": 1}), "unknown_task"),
    ("wrong keyword", protocol_2(kwargs={"url": URI, "policy": POLICY}), "bad_arguments"),
    ("no policy", protocol_2(kwargs={"uri": URI}), "bad_arguments"),
    ("four by place", protocol_2([URI, POLICY, 1, 2]), "bad_arguments"),
    ("both ways", protocol_2([URI, POLICY], {"uri": URI}), "bad_arguments"),
    ("a number as uri", protocol_2(kwargs={"uri": 5, "policy": POLICY}), "bad_arguments"),
    ("args a text", but(body=body(["x", {}, {}])), "bad_arguments"),
    ("id is no UUID", protocol_2(kwargs={"id": "17"}), "bad_id"),
    ("id a number", protocol_2(kwargs={"id": 17}), "bad_id"),
    ("more is a number", protocol_2(kwargs={"id": ROW}, vetline_more=5), "bad_id"),
    ("more is of numbers", protocol_2(kwargs={"id": ROW}, vetline_more=[5]), "bad_id"),
    ("eta a word", header(eta="tomorrow"), "bad_time"),
    ("eta a list", header(eta=[1]), "bad_time"),
    ("eta before all zones", header(eta="0001-01-01T00:00:00+14:00"), "bad_time"),
    ("expires a number", header(expires=5), "bad_time"),
    ("expired", header(expires="2001-01-01T00:00:00+00:00"), "expired"),
    ("a link", but(body=body([[], {"uri": URI, "policy": POLICY}, {"callbacks": [{"task": "x"}]}])), "workflow"),
    ("a data: URI that is too long", protocol_2(kwargs={"uri": "data:," + "x" * 9_000, "policy": POLICY}),
     "invalid_submission"),
    ("ftp", protocol_2(kwargs={"uri": "ftp://a/b", "policy": POLICY}), "invalid_submission"),
    ("a line break", protocol_2(kwargs={"uri": URI + "\r\nX: y", "policy": POLICY}), "invalid_submission"),
    ("NUL in the id", asked(task_id="a\0b"), "invalid_submission"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "code"), [case[1:] for case in REJECTED], ids=[case[0] for case in REJECTED]
)
def test_what_cannot_be_a_row_is_rejected_with_the_reason(message: Any, code: str) -> None:
    _, found = read(message)
    assert isinstance(found, MessageRejected), found
    assert found.code == code


def test_missing_delivery_info_and_properties_harm_nothing() -> None:
    assert submission(but(properties={"body_encoding": "base64"})).uri == URI
    told = but(properties=None, body=json.dumps([[], {"uri": URI, "policy": POLICY}, None]))
    assert submission(told).uri == URI


def test_what_is_too_large_is_known_by_its_head_alone() -> None:
    raw = json.dumps(asked()).encode()
    _, found = read_message(raw[:100], size=MAX_MESSAGE_BYTES + 1)
    assert isinstance(found, MessageRejected)
    assert found.code == "message_too_large"


def test_a_rejected_message_keeps_what_is_needed_to_mend_it() -> None:
    named, found = read(protocol_2(kwargs={"uri": "ftp://a/b", "policy": POLICY}, task_id="t9", priority=9))
    assert isinstance(found, MessageRejected)
    assert (named.task_id, named.uri, named.policy, named.priority) == (
        "t9",
        "ftp://a/b",
        POLICY,
        Priority.LOW,
    )
