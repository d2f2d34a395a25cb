"""A page of Flower's for what `vetline explain` says, and the templates that link to it."""

from pathlib import Path
from typing import Any
from uuid import UUID

from flower.views import BaseHandler
from pydantic_core import to_json
from sqlalchemy import Engine
from tornado import web
from tornado.template import Loader, Template

from moderation.cli.output import visible
from moderation.errors import LedgerUnavailable
from moderation.ledger.explain import explanation as read_story
from moderation.redaction import redact_text, redact_uri
from moderation.safe_text import json_for_terminal

_OURS = Path(__file__).parent / "templates"
_THEIRS = "flower/"  # how a template of ours names the one that it extends


class Templates(Loader):
    """Flower's templates, less those that a file of ours stands in for."""

    def _create_template(self, name: str) -> Template:
        own = _OURS / name
        path = own if own.is_file() else Path(self.root) / name.removeprefix(_THEIRS)
        return Template(path.read_bytes(), name=name, loader=self)


class ExplainPage(BaseHandler):  # type: ignore[misc]  # Flower has no types
    """One assessment, as `vetline explain ID --json` has it."""

    def initialize(self, engine: Engine) -> None:
        self._engine = engine
        super().initialize()

    @web.authenticated
    async def get(self, id_: str) -> None:
        try:
            wanted = UUID(id_)
            story = await self.application.io_loop.run_in_executor(None, read_story, self._engine, wanted)
        except ValueError:
            raise web.HTTPError(404, "not an assessment's id") from None
        except LedgerUnavailable as exc:
            raise web.HTTPError(503, str(exc)) from exc
        if story is None:
            raise web.HTTPError(404, "no such assessment")
        whole = _as_text(story)
        self.render("story.html", story=visible(story), whole=whole)


def _as_text(story: dict[str, Any]) -> str:
    """All of it, as JSON for a person; the policy's text last, since it is long."""
    story["uri"] = redact_uri(story["uri"])
    text = story.pop("policy_text", None)
    return json_for_terminal(redact_text(to_json(story | {"policy_text": text}, indent=2).decode()))
