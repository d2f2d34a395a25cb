"""As whom Postgres runs: as ourselves, except that it refuses to run as root.

As root it runs as the account `postgres`, else `nobody`. No account is created and no folder of the user's is
opened up for it (both embedded packages do so): where it cannot reach a folder, such as one under /root, it
gets the capability to pass through folders and nothing else that root has.
"""

import os
import pwd
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moderation.errors import ServiceMissing

_CANDIDATES = ("postgres", "nobody")
# Number and name of each capability that lets a process pass through folders. The first never writes; a
# container's default set has only the second.
_SEARCH = ((2, "dac_read_search"), (1, "dac_override"))


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a server runs as. `prefix`, where not empty, goes before the command line and does the change."""

    uid: int
    gid: int
    prefix: tuple[str, ...] = ()

    def own(self, path: Path) -> None:
        os.chown(path, self.uid, self.gid)

    @property
    def spawn_as(self) -> tuple[int, int] | None:
        """User and group for the new process; None where it stays as it is or `prefix` changes it."""
        return None if self.prefix or self.uid == os.geteuid() else (self.uid, self.gid)


def account_for(needed: Sequence[Path]) -> Account:
    """The account for a server that must reach each of `needed`.

    Raises ServiceMissing where we are root and no other account can be made to reach them.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    entry = _unprivileged()
    hidden = next((path for path in needed if not _reaches(entry, path)), None)
    if hidden is None:
        return Account(entry.pw_uid, entry.pw_gid)
    return Account(entry.pw_uid, entry.pw_gid, prefix=_searching(entry, hidden))


def _unprivileged() -> pwd.struct_passwd:
    for name in _CANDIDATES:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServiceMissing(
        "Postgres does not run as root, and there is no account `postgres` or `nobody`: "
        "run as a normal user, or set DATABASE_URL"
    )


def _reaches(entry: pwd.struct_passwd, path: Path) -> bool:
    """Whether the account may pass through every folder above `path` and into it."""
    folder = path.resolve()
    return all(_may_enter(entry, above.stat()) for above in (folder, *folder.parents))


def _may_enter(entry: pwd.struct_passwd, facts: os.stat_result) -> bool:
    if facts.st_uid == entry.pw_uid:
        return bool(facts.st_mode & stat.S_IXUSR)
    if facts.st_gid == entry.pw_gid:
        return bool(facts.st_mode & stat.S_IXGRP)
    return bool(facts.st_mode & stat.S_IXOTH)


def _searching(entry: pwd.struct_passwd, hidden: Path) -> tuple[str, ...]:
    setpriv = shutil.which("setpriv")
    held = _permitted()
    capability = next((name for number, name in _SEARCH if held >> number & 1), None)
    if setpriv is None or capability is None:
        raise ServiceMissing(
            f"Postgres does not run as root, and the account {entry.pw_name} cannot reach {hidden}: "
            "move to a folder that others may enter, run as a normal user, or set DATABASE_URL"
        )
    return (
        setpriv,
        f"--reuid={entry.pw_uid}",
        f"--regid={entry.pw_gid}",
        "--clear-groups",
        # Else access(2), by which initdb looks for its own programs, forgets the capability.
        "--securebits=+no_setuid_fixup",
        f"--inh-caps=-all,+{capability}",
        f"--ambient-caps=-all,+{capability}",
    )


def _permitted() -> int:
    """Our permitted capabilities, one bit each; none where the system has no such thing."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next((line for line in status.read_text().splitlines() if line.startswith("CapPrm:")), "CapPrm: 0")
    return int(line.split()[1], 16)
