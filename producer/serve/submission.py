"""A submission through the API: its body checked, its Idempotency-Key honoured, its rows committed. Runs in a thread."""

import hashlib
from collections.abc import Sequence
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import to_json
from sqlalchemy import Engine

from moderation.assessment import Submission
from moderation.errors import InvalidSubmission, Misuse
from moderation.ledger import requests
from producer.client import Client
from producer.serve.limits import RateLimits
from producer.serve.messages import MANY, ONE, Image, receipt
from producer.serve.problems import Mistake, Problem, invalid
from producer.serve.settings import MAX_ITEMS
from producer.serve.tokens import Bearer
from producer.validation import validated_under

_ARRAY = b"["


class SubmissionHandler:
    """What POST /v1/assessments does."""

    def __init__(self, client: Client, engine: Engine, limits: RateLimits) -> None:
        self._client = client
        self._engine = engine
        self._limits = limits

    def accept(self, body: bytes, bearer: Bearer, key: str | None) -> bytes:
        """The answer, as JSON. All are accepted or none. Raises Problem, UnknownPolicy, Unavailable."""
        images = _parsed(body)
        submissions, indexes = _submissions(images)
        self._limits.items.take(bearer.name, len(submissions))
        if key is None:
            return self._submitted(submissions, indexes, None)
        begun = requests.begin(self._engine, bearer.name, key, hashlib.sha256(body).hexdigest())
        if not begun.same:
            raise Problem(
                422,
                "idempotency_key_reused",
                "this Idempotency-Key came with another body before; use a new one",
            )
        if begun.answer is not None:
            return begun.answer.encode()
        try:
            ids = [_derived(begun.seed, number) for number in range(len(submissions))]
            answer = self._submitted(submissions, indexes, ids)
        except Misuse:  # nothing was accepted, and the same key may come with what is mended
            requests.forget(self._engine, bearer.name, key)
            raise
        return requests.finish(self._engine, bearer.name, key, answer.decode()).encode()

    def _submitted(
        self, submissions: Sequence[Submission], indexes: Sequence[int], ids: Sequence[UUID] | None
    ) -> bytes:
        return to_json(receipt(indexes, self._client.submit_all(submissions, ids=ids)))


def _parsed(body: bytes) -> list[Image]:
    try:
        if body.lstrip()[:1] == _ARRAY:
            return MANY.validate_json(body)
        return [ONE.validate_json(body)]
    except ValidationError as exc:
        raise invalid(exc) from None


def _submissions(images: Sequence[Image]) -> tuple[list[Submission], list[int]]:
    """Checked, and of which image each is."""
    submissions: list[Submission] = []
    indexes: list[int] = []
    mistakes: list[Mistake] = []
    for index, image in enumerate(images):
        fields = image.model_dump(exclude={"policy"})
        try:
            made = validated_under(image.policy, **fields)
        except InvalidSubmission as exc:
            mistakes.append(Mistake(pointer=f"/{index}", detail=str(exc)))
        else:
            submissions += made
            indexes += [index] * len(made)
    if mistakes:
        raise Problem(422, "invalid_submission", mistakes[0].detail, errors=mistakes[:20])
    if len(submissions) > MAX_ITEMS:
        raise Problem(
            413, "too_many_items", f"{len(submissions)} assessments in one request; {MAX_ITEMS} are allowed"
        )
    return submissions, indexes


def _derived(seed: UUID, number: int) -> UUID:
    """The id of the request's nth assessment: the same whenever it is repeated, and in time's order as the seed is."""
    tail = bytearray(hashlib.sha256(seed.bytes + number.to_bytes(4)).digest()[:8])
    tail[0] = tail[0] & 0x3F | 0x80  # RFC 9562's variant
    return UUID(bytes=seed.bytes[:8] + bytes(tail))
