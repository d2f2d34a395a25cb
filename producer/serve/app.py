"""The HTTP API: three routes for services, and probes and documentation about it.

Nothing here blocks the event loop: what asks Postgres or parses a body runs in the client's thread pool, with as many
threads as there are connections.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, Header, Path
from fastapi.responses import HTMLResponse, Response
from starlette.types import ASGIApp

from moderation.ledger import counters
from moderation.ledger.engine import open_ledger, ping
from moderation.ledger.status import assessment_status
from moderation.settings import QueueSettings
from producer.async_client import AsyncClient
from producer.serve import docs_page, messages, problems, schema
from producer.serve.auth import Authorizer
from producer.serve.limits import RateLimits
from producer.serve.middleware import RequestMiddleware
from producer.serve.problems import Problem
from producer.serve.settings import ServeSettings
from producer.serve.submission import SubmissionHandler
from producer.serve.tokens import Bearer, Role, Tokens

_ABOUT = (
    "Submit images for judging, and read what became of them. Errors are application/problem+json (RFC 9457)."
)
_KEY_ABOUT = (
    "The same key with the same body gets the same answer, and submits nothing twice; kept for 7 days."
)

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=messages.VISIBLE,
        description=_KEY_ABOUT,
    ),
]
BatchName = Annotated[str, Path(min_length=1, max_length=200)]


class ApiBackend:
    """What the routes work with; database_url and redis_url as the producer's client takes them."""

    def __init__(
        self, database_url: str, redis_url: str | None, tokens: Tokens | None, settings: ServeSettings
    ) -> None:
        limits = RateLimits(settings)
        # Whoever waits for room would hold a thread that others need: the API refuses, and says when to come again.
        queue = QueueSettings().model_copy(update={"when_full": "refuse"})
        self.client = AsyncClient(database_url, redis_url, queue=queue)
        self.engine = open_ledger(database_url)
        self.authorizer = Authorizer(tokens, limits, settings)
        self.submissions = SubmissionHandler(self.client.client, self.engine, limits)

    @asynccontextmanager
    async def open(self, _: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self.client.close()
            self.engine.dispose()

    async def read(self, id_: UUID) -> messages.Assessment:
        row = await self.client.run(partial(assessment_status, self.engine, id_))
        if row is None:
            raise Problem(404, "not_found", f"no assessment {id_}")
        return messages.assessment(row)

    async def batch(self, name: str) -> messages.Batch:
        if "\0" in name:  # Postgres takes none, so no batch has one
            raise Problem(404, "not_found", "no such batch")
        progress = await self.client.run(partial(counters.progress, self.engine, batch=name))
        if not any(progress.states.values()):
            raise Problem(404, "not_found", f"no batch {name!r}")
        states = messages.States(**progress.states)
        return messages.Batch(name=name, states=states, per_s=progress.per_s, left_s=progress.left_s)


def make_app(backend: ApiBackend) -> FastAPI:
    """The routes. What the bare app answers, `guarded` makes safe to listen with."""
    app = FastAPI(
        title="Vetline", version=version("vetline"), description=_ABOUT, lifespan=backend.open,
        docs_url=None, redoc_url=None, redirect_slashes=False,
    )  # fmt: skip
    problems.install(app)
    app.openapi = partial(schema.describe, app)  # type: ignore[method-assign]  # FastAPI's documented way
    _assessments(app, backend)
    _about(app, backend)
    return app


def guarded(app: FastAPI, settings: ServeSettings, *, loopback_only: bool) -> ASGIApp:
    """The app behind its gate."""
    return RequestMiddleware(app, at_once=settings.at_once, loopback_only=loopback_only)


def _assessments(app: FastAPI, backend: ApiBackend) -> None:
    submitter = backend.authorizer.admits(Role.SUBMIT)
    reader = Depends(backend.authorizer.admits(Role.READ))

    @app.post("/v1/assessments", status_code=202, response_model=messages.Receipt)
    async def submit(
        bearer: Annotated[Bearer, Depends(submitter)],
        body: Annotated[bytes, Depends(backend.authorizer.body)],
        key: IdempotencyKey = None,
    ) -> Response:
        """Submit one image, or an array of up to 1,000. All are committed when the answer comes, or none."""
        answer = await backend.client.run(partial(backend.submissions.accept, body, bearer, key))
        return Response(answer, 202, media_type="application/json")

    @app.get("/v1/assessments/{id}", dependencies=[reader])
    async def read(id_: Annotated[UUID, Path(alias="id")]) -> messages.Assessment:
        """How one stands: its state, its verdict, or why there is none."""
        return await backend.read(id_)

    @app.get("/v1/batches/{name:path}", dependencies=[reader])
    async def batch(name: BatchName) -> messages.Batch:
        """How many of a batch are in each state, how fast they end, and how long that will take."""
        return await backend.batch(name)


def _about(app: FastAPI, backend: ApiBackend) -> None:
    @app.get("/live")
    async def live() -> messages.Health:
        """Whether the process answers."""
        return messages.Health()

    @app.get("/ready")
    async def ready() -> messages.Health:
        """Whether it can accept: Postgres answers. Redis need not; what is accepted is committed."""
        await backend.client.run(partial(ping, backend.engine))
        return messages.Health()

    @app.get("/docs", include_in_schema=False, response_class=HTMLResponse)
    async def docs() -> str:
        return docs_page.render(app.openapi())
