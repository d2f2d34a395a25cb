"""From what a caller names to checked submissions. No I/O: what sends them is the business of whoever asks."""

from collections.abc import Sequence
from typing import Any, TypedDict

from pydantic import ValidationError

from moderation.assessment import Priority, Submission
from moderation.errors import InvalidSubmission
from moderation.ledger.submit import new_id
from moderation.policy import parse_ref


class SharedFields(TypedDict, total=False):
    """What many submissions may have in common.

    priority: high, normal or low; normal if left out.
    batch: a name to find, count, pause and cancel them by.
    metadata: at most 16,384 bytes as JSON, kept and shown with the verdict.
    tenant: on whose behalf, where a producer submits for several.
    reuse: whether a verdict about the same pixels under the same policy revision and model may answer; True if left out.
    """

    priority: str | Priority
    batch: str | None
    metadata: dict[str, Any] | None
    tenant: str | None
    reuse: bool


class SubmissionFields(SharedFields, total=False):
    """What one submission may say.

    key: the same key under the same policy id is the same assessment, however often and from wherever it comes.
    """

    key: str | None


def validated(*, priority: str | Priority = Priority.NORMAL, **fields: Any) -> Submission:
    """A submission whose every field was checked. Raises InvalidSubmission naming the field."""
    try:
        named = Priority.named(priority) if isinstance(priority, str) else priority
        return Submission(priority=named, **fields)
    except KeyError:
        raise InvalidSubmission(f"priority must be high, normal or low, not {priority!r}") from None
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidSubmission(f"{field}: {first['msg'].removeprefix('Value error, ')}") from None


def validated_under(policies: str | Sequence[str], **fields: Any) -> list[Submission]:
    """Checked submissions of one image, one for each policy. Raises InvalidSubmission as `validated` does."""
    if isinstance(policies, str):  # a text is a sequence of texts too, and never meant as one
        policies = [policies]
    check_policies(policies, keyed=fields.get("key") is not None)
    together = new_id() if len(policies) > 1 else None
    return [validated(policy=policy, submission_id=together, **fields) for policy in policies]


def check_policies(policies: Sequence[str], *, keyed: bool) -> None:
    """Raises InvalidSubmission unless one image can be submitted under these together; UnknownPolicy for no id.

    keyed: the submission has a key, of which there is one for each policy id, whatever the revision.
    """
    if len(policies) == 1:
        return
    if not policies:
        raise InvalidSubmission("policies: name at least one")
    names = [parse_ref(policy)[0] for policy in policies] if keyed else list(policies)
    if twice := next((name for name in names if names.count(name) > 1), None):
        why = ", and a key means one assessment for each id" if twice not in policies else ""
        raise InvalidSubmission(f"policies: {twice} stands twice{why}")
