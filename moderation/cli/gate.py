"""`vetline policy gate`, `check`, `activate` and `releases`: what a revision must pass before it goes live."""

from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Engine

from moderation.cli.open_ledger import opened_ledger
from moderation.cli.options import Json
from moderation.cli.output import print_json, print_table, talk
from moderation.cli.signature import login_name, plain_words
from moderation.errors import GateRefused, InvalidSubmission
from moderation.gate import read_gate
from moderation.ledger import gates, registry
from moderation.ledger.evaluation_runs import Run, find_run
from moderation.ledger.gates import RuleResult
from moderation.ledger.registry import RegistryEntry

Ref = Annotated[str, typer.Argument(metavar="ID@REV", help="The revision that is to go live.")]
RunId = Annotated[
    str | None, typer.Option("--run", metavar="ID", help="The run to rest on; the newest if left out.")
]
Model = Annotated[
    bool, typer.Option("--model", help="The run's weights are to go live, under a revision that is.")
]
By = Annotated[str | None, typer.Option(help="Who does it; your login name if left out.")]
_RELEASES = {
    "policy": "policy",
    "revision": "revision",
    "kind": "kind",
    "run_id": "run",
    "released_by": "by",
    "login": "login",
    "released_at": "on",
    "override_reason": "past the gate because",
}


def gate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rules as YAML; see docs/evaluation.md.")],
    reason: Annotated[str, typer.Option(help="Why; required where a gate stands already.")] = "",
    by: By = None,
) -> None:
    """Set what revisions must pass before they go live.

    What is live stays so. From now on a revision that is added is a draft, until `vetline policy activate` lets it
    through. Who may replace a gate: a login in vetline_approver.
    """
    wanted = read_gate(file)
    who = plain_words("--by", by if by is not None else login_name())
    with opened_ledger() as engine:
        registry.find(engine, wanted.policy)
        stands = gates.gate_of(engine, wanted.policy)
        if stands and not reason:
            raise InvalidSubmission(f"{wanted.policy} has a gate: say why it changes, with --reason")
        why = plain_words("--reason", reason) if reason else "first gate"
        gates.set_gate(engine, wanted, by=who, reason=why)
    talk(f"{wanted.policy} has a gate of {len(wanted.rules)} rules on data {wanted.data[:12]}")


def check(ref: Ref, run: RunId = None, model: Model = False, as_json: Json = False) -> None:
    """Check a revision against its gate, rule by rule.

    Exit code 1 where it would not pass.
    """
    with opened_ledger() as engine:
        entry, found = _meant(engine, ref, run)
        results = gates.check_gate(engine, entry, found.id if found else None, kind=_kind(model))
    if as_json:
        print_json(
            {"policy": entry.ref, "run": found and found.id, "rules": results, "passed": _passed(results)}
        )
    else:
        print_table(
            ({"passed": "yes" if r.passed else "NO", "rule": r.rule, "says": r.says} for r in results),
            {"passed": "passed", "rule": "rule", "says": "what the run has"},
            style=lambda row: "red" if row["passed"] == "NO" else None,
        )
    if not _passed(results):
        raise typer.Exit(1)


def activate(
    ref: Ref,
    run: RunId = None,
    model: Model = False,
    override: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Go past the gate; for a login in vetline_approver."),
    ] = None,
    by: By = None,
) -> None:
    """Let a revision go live that passes its gate.

    From now on the policy's bare id means it. Exit code 1 where the gate refuses.
    """
    who = plain_words("--by", by if by is not None else login_name())
    why = plain_words("--override", override) if override is not None else None
    with opened_ledger() as engine:
        entry, found = _meant(engine, ref, run)
        gates.release(engine, entry, found.id if found else None, by=who, kind=_kind(model), override=why)
    talk(f"{entry.ref} is live" + (f", past its gate: {why}" if why else ""))


def releases(
    policy: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only this policy's.")] = None,
    as_json: Json = False,
) -> None:
    """List what went live, by whom, and on which run."""
    with opened_ledger() as engine:
        found = gates.releases(engine, policy)
    if as_json:
        print_json(found)
    else:
        print_table(({name: getattr(one, name) for name in _RELEASES} for one in found), _RELEASES)


def _meant(engine: Engine, ref: str, run: str | None) -> tuple[RegistryEntry, Run | None]:
    """The revision and the run that it rests on. Raises GateRefused where the policy has no gate."""
    entry = registry.find(engine, ref)
    stands = gates.gate_of(engine, entry.policy)
    if stands is None:
        raise GateRefused(f"{entry.policy} has no gate: its newest revision is live as soon as it is added")
    if run is not None:
        return entry, find_run(engine, run)
    newest = gates.newest_run(engine, entry, stands)
    return entry, find_run(engine, str(newest)) if newest else None


def _kind(model: bool) -> str:
    return "model" if model else "policy"


def _passed(results: list[RuleResult]) -> bool:
    return bool(results) and all(result.passed for result in results)
