"""Renders every error as application/problem+json (RFC 9457)."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from moderation.errors import Misuse, Unavailable
from moderation.log import get_logger
from producer.serve.messages import SENTENCES

log = get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
_RETRY_S = 5  # until a database that is away is worth another try


class Mistake(BaseModel):
    """One thing that is wrong. pointer: where, as a JSON pointer into the body (RFC 6901), or the parameter's name."""

    model_config = ConfigDict(extra="forbid")

    pointer: str
    detail: str


class ProblemBody(BaseModel):
    """What every error looks like. code: stable, for programs; detail: for people."""

    model_config = ConfigDict(extra="forbid")

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[Mistake] = []


class Problem(Exception):
    """Ends a request with this answer."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: list[Mistake] | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.body = ProblemBody(
            type=f"urn:vetline:problem:{code}",
            title=HTTPStatus(status).phrase,
            status=status,
            code=code,
            detail=detail,
            errors=errors or [],
        )
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(math.ceil(retry_after_s))

    def response(self) -> Response:
        content = to_json(self.body, exclude_none=True)
        return Response(content, self.status, self.headers, media_type=MEDIA_TYPE)


def invalid(error: ValidationError, *, at: str = "") -> Problem:
    """The answer to a body or parameter that breaks its schema. at: what its pointers begin with."""
    errors = error.errors(include_url=False, include_input=False)[:20]
    return _invalid(errors, at)


def _invalid(errors: list[Any], at: str) -> Problem:
    mistakes = [
        Mistake(pointer=at + "".join(f"/{_escaped(part)}" for part in one["loc"]), detail=_detail(one))
        for one in errors
    ]
    return Problem(
        422, "invalid_request", f"{mistakes[0].pointer or 'body'}: {mistakes[0].detail}", errors=mistakes
    )


def _detail(mistake: Mapping[str, Any]) -> str:
    pattern = mistake.get("ctx", {}).get("pattern")
    return SENTENCES.get(pattern) or str(mistake["msg"])


def install(app: FastAPI) -> None:
    """Answer every exception of the app with a problem."""

    @app.exception_handler(Problem)
    async def problem(request: Request, exc: Problem) -> Response:
        return exc.response()

    @app.exception_handler(Misuse)
    async def misuse(request: Request, exc: Misuse) -> Response:
        return Problem(422, exc.code, str(exc)).response()

    @app.exception_handler(Unavailable)
    async def unavailable(request: Request, exc: Unavailable) -> Response:
        log.warning("door_unavailable", code=exc.code, error=str(exc))
        # What is down is our business; its address and account are.
        detail = (
            str(exc) if exc.code == "queue_full" else "a service that this needs is down; nothing is lost"
        )
        return Problem(503, exc.code, detail, retry_after_s=_RETRY_S).response()

    @app.exception_handler(RequestValidationError)
    async def parameters(request: Request, exc: RequestValidationError) -> Response:
        return _invalid([dict(one) for one in exc.errors()][:20], "").response()

    @app.exception_handler(HTTPException)
    async def http(request: Request, exc: HTTPException) -> Response:
        status = HTTPStatus(exc.status_code)
        return Problem(
            status, status.name.lower(), f"{request.method} {request.url.path}: {status.phrase.lower()}",
            headers=exc.headers,
        ).response()  # fmt: skip

    @app.exception_handler(Exception)
    async def defect(request: Request, exc: Exception) -> Response:
        log.error("door_defect", path=request.url.path, exc_info=exc)
        return Problem(500, "internal_error", "a defect of ours; it was logged").response()


def _escaped(part: object) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")
