"""What `vetline doctor` says of Postgres: reached, migrated, swept, in time, with roles, and keeping what it commits."""

import time
from collections.abc import Iterator
from typing import Any

from moderation.ledger import migrate, queries, roles
from moderation.ledger.engine import open_ledger, skew_s
from moderation.ledger.server import PostgresServer, read_server
from moderation.services.resolve import Services
from worker.doctor.check import Check, CheckState

_SWEPT_LATELY_S = 60.0  # workers sweep every second
_SKEW_S = 60.0  # S3 refuses signatures at 15 minutes, many webhook receivers at 5


def postgres(services: Services, *, worker_needed: bool) -> Iterator[Check]:
    engine = open_ledger(services.database_url)
    try:
        begun = time.perf_counter()
        revision, expected = migrate.current(engine), migrate.head()
        elapsed_ms = (time.perf_counter() - begun) * 1000
        yield Check("postgres", CheckState.OK, f"{services.database_from}, answered in {elapsed_ms:.0f} ms")
        if revision != expected:
            state = CheckState.NOTE if revision == migrate.EMPTY and not worker_needed else CheckState.PROBLEM
            yield Check(
                "tables", state, f"at {revision}, this release is at {expected}", "vetline db upgrade"
            )
            return
        yield Check("tables", CheckState.OK, f"at {revision}")
        yield _workers(queries.last_sweep(engine), needed=worker_needed)
        if not worker_needed:
            yield clock(skew_s(engine))
            yield server_roles(roles.roles_status(engine))
            yield from keeping(read_server(engine), configured=services.database_from == "configured")
    finally:
        engine.dispose()


def clock(ahead_s: float) -> Check:
    """Leases are Postgres' own times; signatures of s3: and webhooks, and the logs, are by this machine's."""
    says = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} Postgres"
    if abs(ahead_s) > _SKEW_S:
        return Check(
            "clock", CheckState.PROBLEM, says, "run NTP on both machines: signed requests will be refused"
        )
    return Check("clock", CheckState.OK, says)


def server_roles(status: roles.RolesStatus) -> Check:
    if status.missing:
        says = f"{', '.join(status.missing)} not there: every process connects with all rights"
        return Check("roles", CheckState.NOTE, says, roles.ADVICE.format(status.missing[0]))
    if status.bare:
        return Check(
            "roles", CheckState.NOTE, f"nothing granted to {', '.join(status.bare)}", "vetline db upgrade"
        )
    return Check("roles", CheckState.OK, "each has its own rights")


def _workers(swept: dict[str, Any] | None, *, needed: bool) -> Check:
    absent = CheckState.PROBLEM if needed else CheckState.NOTE
    if swept is None:
        return Check("workers", absent, "none has ever run on this ledger", "vetline worker")
    says = f"last sweep {swept['age_s']:.0f} s ago by {swept['worker']}"
    if swept["age_s"] > _SWEPT_LATELY_S:
        return Check("workers", absent, says, "no worker runs: nothing is judged")
    return Check("workers", CheckState.OK, says)


def keeping(server: PostgresServer, *, configured: bool) -> Iterator[Check]:
    """Whether what it commits stays. configured: by an operator, rather than started here, where nobody wants a standby."""
    if server.is_standby:
        advice = "DATABASE_URL of the primary; with several hosts in it, target_session_attrs=read-write"
        yield Check("postgres writes", CheckState.PROBLEM, "it is a standby and takes none", advice)
    if server.off:
        says = f"{', '.join(server.off)} off: a crash can lose what was accepted"
        yield Check(
            "postgres disk", CheckState.NOTE, says, f"{server.off[0]} = on, unless all of it may be lost"
        )
    else:
        yield Check("postgres disk", CheckState.OK, f"{server.version} keeps what it commits over a crash")
    if configured:
        yield _standbys(server)


def _standbys(server: PostgresServer) -> Check:
    if not server.standbys:
        says = "none streams from here: with this machine's disk goes what was not backed up"
        return Check("standby", CheckState.NOTE, says, "a standby, or archived WAL: docs/operations.md")
    if not server.waits_for_them:
        says = f"{server.standbys}, asynchronous: a failover can lose the last moments of what was accepted"
        return Check("standby", CheckState.NOTE, says, "synchronous_standby_names, where that may not be")
    return Check("standby", CheckState.OK, f"{server.standbys}, and commits wait for them")
