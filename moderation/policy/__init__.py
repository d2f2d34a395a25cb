"""Policies: what may not pass, as versioned data, and the exact text that the model reads.

The parts, in the order of reading: text (the training text, taken apart), category (a category and its state),
prompt (rendering, and reading back), revision (id, number, digest), file and markup (what people edit), builtin,
diff, size. Others import from here.
"""

from moderation.policy.builtin import builtin_policies
from moderation.policy.category import Category, CategoryState
from moderation.policy.diff import PolicyDiff, describe_diff
from moderation.policy.file import dump_policy, load_policy
from moderation.policy.prompt import parse_prompt, render
from moderation.policy.revision import PolicyRevision, parse_ref, warnings
from moderation.policy.size import CONTEXT_TOKENS, check_size, token_bound
from moderation.policy.text import NONE_APPLYING, refuse_special_tokens

__all__ = [
    "CONTEXT_TOKENS",
    "NONE_APPLYING",
    "Category",
    "CategoryState",
    "PolicyDiff",
    "PolicyRevision",
    "builtin_policies",
    "check_size",
    "describe_diff",
    "dump_policy",
    "load_policy",
    "parse_prompt",
    "parse_ref",
    "refuse_special_tokens",
    "render",
    "token_bound",
    "warnings",
]
