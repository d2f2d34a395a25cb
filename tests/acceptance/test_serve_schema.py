"""The API against its own OpenAPI document: schemathesis sends what the schema allows and what it forbids.

`--hypothesis-profile=deep` sends forty times as much.
"""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from moderation.ledger.engine import open_ledger
from moderation.ledger.policies import seed_builtin
from producer.serve.messages import PolicyRef
from producer.serve.tokens import Role
from tests.support.ledger import POLICY
from tests.support.serve import RunningApi
from tests.support.services import SessionPostgres, SessionRedis

EXAMPLES = 25  # of each operation and mode: 8 s on two cores
_REF = re.compile(r"[a-z0-9][a-z0-9-]*(@[1-9][0-9]{0,8})?", re.ASCII)
assert _REF.pattern == PolicyRef.__metadata__[0].metadata[1].pattern.strip("^$")

OPERATIONS = (
    "POST /v1/assessments",
    "GET /v1/assessments/{id}",
    "GET /v1/batches/{name}",
    "GET /live",
    "GET /ready",
)


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: SessionPostgres, redis_server: SessionRedis
) -> Iterator[RunningApi]:
    with postgres_server.database() as database_url, redis_server.database() as redis_url:
        engine = open_ledger(database_url)
        seed_builtin(engine)
        engine.dispose()
        env = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "VETLINE_SERVE_REQUESTS_PER_S": "100000"}
        with RunningApi(tmp_path_factory.mktemp("door"), env) as api:
            yield api


@pytest.fixture(scope="module")
def described(api: RunningApi) -> Any:
    found = schemathesis.openapi.from_url(api.url + "/openapi.json")
    found.config.generation.update(
        allow_x00=False
    )  # JSON allows NUL and Postgres does not: tested in test_serve
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


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_what_the_schema_says(
    api: RunningApi, described: Any, label: str, mode: GenerationMode
) -> None:
    operation = described.find_operation_by_label(label)
    plain = not any(operation.iter_parameters()) and not operation.body
    if mode is GenerationMode.NEGATIVE and plain:
        return  # nothing in it that could be wrong

    @settings(
        max_examples=settings().max_examples if settings().max_examples >= 1000 else EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=api.bearer(Role.ADMIN))

    check()


def test_every_operation_is_tested(described: Any) -> None:
    assert {result.ok().label for result in described.get_all_operations()} == set(OPERATIONS)
