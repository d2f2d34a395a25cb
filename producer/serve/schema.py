"""Builds the API's OpenAPI document: FastAPI's routes, with our bodies and problems."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from producer.serve.messages import IMAGES
from producer.serve.problems import MEDIA_TYPE, ProblemBody

_REF = "#/components/schemas/"
_EVERYWHERE = {500: "A defect of ours.", 503: "A service is down, or too much is under way: try again."}
_GUARDED = {
    401: "No token, or none that we know.",
    403: "The token's role may not.",
    429: "Too fast: see Retry-After.",
}
_PARAMETERS = {422: "What was sent breaks the schema, or names what is not there."}
_BODY = {
    408: "The body came too slowly.",
    413: "The body, or the number of assessments, is over the limit.",
    415: "The body is not application/json.",
}
_READ = {404: "There is no such thing."}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which we never answer with
        schemas.pop(name, None)
    problem = ProblemBody.model_json_schema(ref_template=_REF + "{model}")
    body = IMAGES.json_schema(ref_template=_REF + "{model}")
    schemas.update(problem.pop("$defs"), **body.pop("$defs"), Problem=problem, Images=body)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            guarded = "security" in operation
            answers = _EVERYWHERE | (_GUARDED if guarded else {})
            if method == "post":
                answers |= _BODY | _PARAMETERS
                operation["requestBody"] = {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": _REF + "Images"}}},
                }
            elif "{" in path:
                answers |= _READ | _PARAMETERS
            operation["responses"] = _kept(operation["responses"]) | {
                str(status): _answer(meaning) for status, meaning in answers.items()
            }
    app.openapi_schema = document
    return document


def _kept(responses: dict[str, Any]) -> dict[str, Any]:
    return {status: answer for status, answer in responses.items() if status.startswith("2")}


def _answer(meaning: str) -> dict[str, Any]:
    return {"description": meaning, "content": {MEDIA_TYPE: {"schema": {"$ref": _REF + "Problem"}}}}
