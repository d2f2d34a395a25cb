"""Messages of plain Celery clients, as bytes: what each kind of client pushes, by its own source."""

import base64
import json
from typing import Any
from uuid import uuid4

SEPARATOR = "\x06\x16"  # kombu's


def body(call: Any) -> str:
    return base64.b64encode(json.dumps(call).encode()).decode()


def protocol_2(
    args: list[Any] | None = None,
    kwargs: dict[str, Any] | None = None,
    *,
    task: str = "vetline.assess",
    task_id: str | None = None,
    priority: int = 0,
    **headers: Any,
) -> dict[str, Any]:
    """As Celery 4 and 5 write it."""
    id_ = task_id or str(uuid4())
    return {
        "body": body([args or [], kwargs or {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py", "task": task, "id": id_, "shadow": None, "eta": None, "expires": None, "group": None,
            "group_index": None, "retries": 0, "timelimit": [None, None], "root_id": id_, "parent_id": None,
            "argsrepr": "()", "kwargsrepr": "{}", "origin": "gen1@host", "ignore_result": False,
            "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {}, **headers,
        },
        "properties": {
            "correlation_id": id_, "reply_to": str(uuid4()), "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "vetline"}, "priority": priority,
            "body_encoding": "base64", "delivery_tag": str(uuid4()),
        },
    }  # fmt: skip


def celery_node_2(uri: str, policy: str) -> bytes:
    """celery-node, protocol 2: camel-case properties, and what it does not know left out."""
    id_ = str(uuid4())
    return _bytes(
        [[], {"uri": uri, "policy": policy}, {}],
        headers={"lang": "js", "task": "vetline.assess", "id": id_},
        properties={"correlationId": id_, "replyTo": ""},
    )


def celery_node_1(uri: str, policy: str) -> bytes:
    """celery-node, protocol 1: arguments by place, no named ones."""
    return _bytes({"task": "vetline.assess", "id": str(uuid4()), "args": [uri, policy]}, headers={})


def gocelery(uri: str, policy: str) -> bytes:
    """gocelery: `headers` is left out, and the exchange says `celery` whatever the list."""
    call = {
        "id": str(uuid4()), "task": "vetline.assess", "args": [uri, policy], "kwargs": {}, "retries": 0,
        "eta": None, "expires": None,
    }  # fmt: skip
    message = json.loads(_bytes(call, headers={}, properties={"correlation_id": str(uuid4())}))
    del message["headers"]
    message["properties"]["delivery_info"] = {"priority": 0, "routing_key": "celery", "exchange": "celery"}
    return json.dumps(message).encode()


def celery_php(uri: str, policy: str) -> bytes:
    """celery-php: an id that is no UUID, `binary` for JSON in base64, and an empty array where an object is meant."""
    call = {
        "id": "php_65f1c0ffee1a24.12345678", "task": "vetline.assess", "args": [uri, policy], "kwargs": [],
        "retries": 0,
    }  # fmt: skip
    message = json.loads(_bytes(call, headers={}, properties={"delivery_tag": call["id"]}))
    return json.dumps(message | {"content-encoding": "binary", "headers": []}).encode()


def _bytes(call: Any, *, headers: dict[str, Any], properties: dict[str, Any] | None = None) -> bytes:
    """What all of them share."""
    told = {
        "body_encoding": "base64", "delivery_mode": 2, "delivery_tag": str(uuid4()), "reply_to": str(uuid4()),
        "delivery_info": {"exchange": "vetline", "priority": 0, "routing_key": "vetline"},
    }  # fmt: skip
    message = {
        "body": body(call),
        "headers": headers,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "properties": told | (properties or {}),
    }
    return json.dumps(message).encode()
