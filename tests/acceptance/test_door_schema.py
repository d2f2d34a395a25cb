"""The door against its own OpenAPI document: schemathesis sends what the schema allows and what it forbids.

`--hypothesis-profile=deep` sends two hundred times as much.
"""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from producer.serve.messages import PolicyRef
from producer.serve.tokens import Role
from tests.support.door import RunningDoor
from tests.support.ledger import POLICY
from tests.support.services import SessionPostgres, SessionRedis

EXAMPLES = 12  # of each operation: 8 s on two cores
DEEP = 2000
_REF = re.compile(r"[a-z0-9][a-z0-9-]*(@[1-9][0-9]{0,8})?", re.ASCII)
assert _REF.pattern == PolicyRef.__metadata__[0].metadata[1].pattern.strip("^$")

settings.register_profile("deep", max_examples=DEEP, deadline=None)


@pytest.fixture(scope="module")
def door(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: SessionPostgres, redis_server: SessionRedis
) -> Iterator[RunningDoor]:
    with postgres_server.database() as database_url, redis_server.database() as redis_url:
        engine = open_ledger(database_url)
        seed_builtin(engine)
        engine.dispose()
        env = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "VETLINE_SERVE_REQUESTS_PER_S": "100000"}
        with RunningDoor(tmp_path_factory.mktemp("door"), env) as door:
            yield door


@pytest.fixture(scope="module")
def described(door: RunningDoor) -> Any:
    found = schemathesis.openapi.from_url(door.url + "/openapi.json")
    found.config.generation.update(
        allow_x00=False
    )  # JSON allows NUL and Postgres does not: tested in test_door
    found.hook(map_body)
    found.hook(map_headers)
    return found


def map_body(context: Any, body: Any) -> Any:
    """A policy that the schema allows becomes one that is there; what the schema forbids stays."""
    for image in body if isinstance(body, list) else [body]:
        if isinstance(image, dict) and _is_policy(image.get("policy")):
            image["policy"] = POLICY
    return body


def map_headers(context: Any, headers: Any) -> Any:
    """An Idempotency-Key that the schema allows is one that no other body came with."""
    if headers and re.fullmatch(r"[\x21-\x7e]{1,255}", str(headers.get("Idempotency-Key", ""))):
        headers["Idempotency-Key"] = str(uuid4())
    return headers


def _is_policy(value: Any) -> bool:
    if isinstance(value, list):
        return 1 <= len(value) <= 16 and all(_is_policy(one) and isinstance(one, str) for one in value)
    return isinstance(value, str) and len(value) <= 64 and _REF.fullmatch(value) is not None


schema = schemathesis.pytest.from_fixture("described")


@schema.parametrize()
@settings(
    max_examples=DEEP if settings().max_examples == DEEP else EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_what_the_schema_says(case: schemathesis.Case, door: RunningDoor) -> None:
    case.call_and_validate(headers=door.bearer(Role.ADMIN))
