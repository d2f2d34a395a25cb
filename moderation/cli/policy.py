"""`vetline policy`: the registry of policies, for the people who write them."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from moderation.cli import gate as gates
from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Json
from moderation.cli.output import print_json, print_table, say, talk
from moderation.cli.reassess import impact
from moderation.cli.signature import login_name, plain_words
from moderation.errors import BadSource, PolicyError, UnknownPolicy
from moderation.ledger import registry
from moderation.ledger.registry import RegistryEntry
from moderation.policy import PolicyRevision, describe_diff, load_policy, parse_ref, token_bound, warnings

commands = typer.Typer()
_policy = typer.Typer(
    help="Add, show, compare and retire policies.\n\n"
    "A policy says what may not pass. Its revisions never change.",
    no_args_is_help=True,
)
commands.add_typer(_policy, name="policy")
_policy.command()(impact)
_policy.command()(gates.gate)
_policy.command()(gates.check)
_policy.command()(gates.activate)
_policy.command()(gates.releases)

Ref = Annotated[str, typer.Argument(metavar="ID[@REV]", help="A policy, or one revision of it.")]
_TABLE = {
    "policy": "policy",
    "revision": "revision",
    "state": "state",
    "title": "title",
    "created_by": "added by",
    "created_at": "on",
    "reason": "why",
}


@_policy.command("list")
def list_(as_json: Json = False) -> None:
    """List every policy and its revisions."""
    with opened_ledger() as engine:
        rows = [_row(entry) for entry in registry.entries(engine)]
    if as_json:
        print_json(rows)
    else:
        print_table(({**row, "created_at": f"{row['created_at']:%Y-%m-%d}"} for row in rows), _TABLE)


@_policy.command()
def show(ref: Ref, as_json: Json = False) -> None:
    """Show a revision's categories, its author and warnings."""
    with opened_ledger() as engine:
        entry = registry.find(engine, ref)
    policy = entry.content
    if as_json:
        print_json(_row(entry) | policy.model_dump(mode="json") | {"warnings": warnings(policy)})
        return
    say(f"{policy.ref}  {policy.title}  ({_state(entry)})")
    say(f"added on {entry.created_at:%Y-%m-%d %H:%M} UTC by ", f"{entry.created_by}: {entry.reason}")
    say(f"text {policy.prompt_sha256}, at most {token_bound(policy)} tokens")
    if policy.note:
        say(f"\n{policy.note}")
    for category in policy.categories:
        say(f"\n{category.full_name} ({category.state.value})")
        for title, bullets in (("should not", category.should_not), ("can", category.can)):
            for bullet in bullets:
                say(f"  {title}: {bullet}")
    _warn(policy)


@_policy.command()
def render(ref: Ref, as_json: Json = False) -> None:
    """Print the exact text that the model reads."""
    with opened_ledger() as engine:
        policy = registry.find(engine, ref).content
    if as_json:
        print_json({"policy": policy.ref, "prompt": policy.prompt, "prompt_sha256": policy.prompt_sha256})
    else:  # not a byte more, so that its digest is the one that verdicts name; but a prompt wants a line of its own
        if sys.stdout.isatty():
            say(policy.prompt)
        else:  # the bytes that the digest is of
            sys.stdout.write(policy.prompt)


@_policy.command()
def add(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A policy as YAML; see docs/policies.md.")],
    reason: Annotated[str, typer.Option(help="Why the policy changes; required behind revision 1.")] = "",
    by: Annotated[str | None, typer.Option(help="Who adds it; your login name if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Check a policy file and make it the next revision."""
    policy = _read(file)
    who = plain_words("--by", by if by is not None else login_name())
    why = plain_words("--reason", reason) if reason else ""
    with opened_ledger() as engine:
        added = registry.add(engine, policy, by=who, reason=why)
    _warn(added.policy)
    if as_json:
        output = {"policy": added.policy.ref, "added": added.new, "warnings": warnings(added.policy)}
        print_json(output)
    else:
        talk(
            f"added {added.policy.ref}"
            if added.new
            else f"{added.policy.ref} stands already, with this content"
        )


@_policy.command()
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="ID, ID@REV, or a file.")],
    after: Annotated[str, typer.Argument(metavar="B", help="ID, ID@REV, or a file.")],
    as_json: Json = False,
) -> None:
    """Compare two revisions or files.

    Says what changed from A to B, and whether the model reads another text.
    """
    policies = _policies_named(before, after)
    description = describe_diff(policies[0], policies[1])
    # A file is called by its name: its revision may not be given yet.
    description = description.model_copy(
        update={side: name for side, name in (("before", before), ("after", after)) if _is_file(name)}
    )
    if as_json:
        print_json(description)
    else:
        say("\n".join(description.lines))


@_policy.command()
def retire(ref: Ref, as_json: Json = False) -> None:
    """Take no new images under a policy or a revision.

    What was submitted is still judged.
    """
    with opened_ledger() as engine:
        retired = registry.retire(engine, ref)
    if as_json:
        print_json({"retired": retired})
    else:
        talk(f"retired: {', '.join(retired)}" if retired else f"{ref} was retired already")


def _policies_named(*names: str) -> list[PolicyRevision]:
    """The policies of these names. Files alone need no ledger."""
    if all(map(_is_file, names)):
        return [_read(name) for name in names]
    with opened_ledger() as engine:
        return [_read(name) if _is_file(name) else registry.find(engine, name).content for name in names]


def _is_file(name: str) -> bool:
    try:
        parse_ref(name)
    except UnknownPolicy:
        return True
    return False


def _read(file: str) -> PolicyRevision:
    try:
        return load_policy(Path(file).read_text(encoding="utf-8"), source=Path(file).name)
    except UnicodeDecodeError:
        raise PolicyError(f"{file}: is not UTF-8 text") from None
    except (OSError, ValueError) as exc:  # a name with NUL is a ValueError
        raise BadSource(f"no policy file {file!r}: {getattr(exc, 'strerror', None) or exc}") from None


def _warn(policy: PolicyRevision) -> None:
    for line in warnings(policy):
        talk(f"warning: {line}")


def _state(entry: RegistryEntry) -> str:
    return f"retired on {entry.retired_at:%Y-%m-%d}" if entry.retired_at is not None else entry.state


def _row(entry: RegistryEntry) -> dict[str, Any]:
    shown = ("policy", "revision", "title", "current", "retired_at", "created_at", "created_by", "reason")
    return {name: getattr(entry, name) for name in (*shown, "prompt_sha256")} | {"state": _state(entry)}
