"""The policies that every installation has: the files in `policies/`, the model's own default first."""

from functools import cache
from importlib import resources

from moderation.policy.file import load_policy
from moderation.policy.revision import PolicyRevision

_FILES = ("llavaguard-default", "dataset-curation", "art-and-education", "newsroom", "strict")


@cache
def builtin_policies() -> tuple[PolicyRevision, ...]:
    """Each built-in policy's current revision."""
    folder = resources.files("moderation.policies")
    return tuple(
        load_policy(folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8"), source=f"{name}.yaml")
        for name in _FILES
    )
