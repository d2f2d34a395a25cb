"""What `vetline doctor` says of how Redis keeps the queue. Nothing that is accepted depends on it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from worker.doctor.check import Check, CheckState

_MANY = 1000  # of plain messages; they are in the ledger within a second of their coming


def takes_writes(info: Mapping[str, Any]) -> Iterator[Check]:
    """A finding where it refuses them, and so every ring. info: what INFO says."""
    if info.get("role") != "master":
        says = "it is a replica and refuses writes"
        yield Check("redis writes", CheckState.PROBLEM, says, "point REDIS_URL at the primary")
    failed = [
        what
        for what, name in (
            ("snapshot", "rdb_last_bgsave_status"),
            ("append-only write", "aof_last_write_status"),
        )
        if info.get(name, "ok") != "ok"
    ]
    if failed:
        says = f"its last {failed[0]} failed: it refuses writes until one succeeds"
        yield Check("redis writes", CheckState.PROBLEM, says, "its log says why; most often its disk is full")


def persistence(info: Mapping[str, Any]) -> Check:
    """What is left of the queue when it restarts. A note at most: the ledger rings again for what is lost.

    By INFO alone: whether it takes snapshots stands in CONFIG, which none of our users of Redis may read.
    """
    if info.get("aof_enabled"):
        return Check("redis disk", CheckState.OK, "keeps an append-only file")
    says = "keeps no append-only file: its restart may lose rings that wait, which the ledger rings again in seconds"
    return Check("redis disk", CheckState.NOTE, says, "appendonly yes, where those seconds count")


def plain_messages(depths: Mapping[str, int], read: Sequence[str]) -> Iterator[Check]:
    """Findings about messages of plain Celery clients. depths: by queue. read: the queues that workers take from."""
    for queue, count in depths.items():
        if count and queue not in read:
            says = f"{count} messages lie in the list {queue}, which no worker reads"
            advice = f"clients name the queue {read[0]}; or VETLINE_QUEUE_PLAIN_ALSO={queue}, if nothing else uses it"
            yield Check("plain messages", CheckState.PROBLEM, says, advice)
        elif count >= _MANY:
            says = f"{count} messages wait in {queue}: workers take a hundred at a time, within a second"
            yield Check("plain messages", CheckState.NOTE, says, "is a worker running?")
