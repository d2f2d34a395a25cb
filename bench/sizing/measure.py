"""What one verdict leaves behind: bytes of each table and index, of the write-ahead log, commits; and what a message is.

The ledger's own statements, as a worker on an H100 sends them: rows submitted many at a time, and claimed and recorded in
groups of what 250 ms bring. Images are all different, answers have about 100 tokens and are kept as they are.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any

import redis
from sqlalchemy import text

from bench.queue.ground import POLICY, Ground
from moderation.assessment import Claim, Submission
from moderation.doorbell import Doorbell
from moderation.ledger.claim import claim
from moderation.ledger.policies import PinnedPolicy, pin
from moderation.ledger.record import record_all
from moderation.ledger.submit import new_id, submit
from moderation.verdict import Ask, ImageFacts, Judgement, Rating, Rung, Verdict

CHUNK = 500  # submissions of one statement
GROUP = 14  # claims and verdicts of one: 56 images/s for 250 ms; a message rings up to 16
_TABLES = ("assessment", "attempt", "verdict")
_RINGS = 1000
_SAID = (
    "the image shows a person who walks along street with bag near window table cup of coffee light and no one else "
    "is in sight nothing that policy would restrict category none applying for this reason it can be kept as is"
)
_WORDS_OF_ANSWER = 70  # with its JSON about 100 tokens

_LOG = text("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
_COMMITS = text("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
_SIZES = text("SELECT pg_table_size(CAST(:name AS regclass)), pg_indexes_size(CAST(:name AS regclass))")


def measure(ground: Ground, items: int, *, warm_up: int = CHUNK) -> dict[str, Any]:
    """Figures of one verdict, submit to record. warm_up: items before the first that counts."""
    pinned = pin(ground.engine, [POLICY])
    _live(ground, pinned, iter(range(warm_up)))  # the tables' first pages and the catalogue's caches
    before, sizes = _counted(ground), _sizes(ground)
    begun = time.perf_counter()
    _live(ground, pinned, iter(range(warm_up, warm_up + items)))
    took_s = time.perf_counter() - begun
    after, now = _counted(ground), _sizes(ground)
    tables = {
        name: {
            "table": round((now[name][0] - sizes[name][0]) / items),
            "indexes": round((now[name][1] - sizes[name][1]) / items),
        }
        for name in _TABLES
    }
    return {
        "items": items,
        "bytes_by_table": tables,
        "bytes": sum(each["table"] + each["indexes"] for each in tables.values()),
        "index_bytes": sum(each["indexes"] for each in tables.values()),
        "wal_bytes": round((after.log_bytes - before.log_bytes) / items),
        "commits": round((after.commits - before.commits) / items, 2),
        "message_bytes": _message_bytes(ground),
        "took_s": round(took_s, 1),
    }


@dataclass(frozen=True, slots=True)
class _Counted:
    log_bytes: int
    commits: int


def _counted(ground: Ground) -> _Counted:
    with ground.engine.connect() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        connection.execute(text("SELECT pg_stat_clear_snapshot()"))
        return _Counted(connection.execute(_LOG).scalar_one(), connection.execute(_COMMITS).scalar_one())


def _sizes(ground: Ground) -> dict[str, tuple[int, int]]:
    with ground.engine.connect() as connection:
        found = {name: connection.execute(_SIZES, {"name": name}).one() for name in _TABLES}
    return {name: (int(row[0]), int(row[1])) for name, row in found.items()}


def _live(ground: Ground, pinned: dict[str, PinnedPolicy], numbers: Iterator[int]) -> None:
    """These images from submit to record."""
    while some := list(islice(numbers, CHUNK)):
        rows = [Submission(uri=_uri(n), policy=POLICY, key=f"upload-{n}") for n in some]
        tickets = submit(ground.engine, rows, pinned, [new_id() for _ in rows], rung=True)
        pairs = list(zip(some, tickets, strict=True))
        for group in (pairs[first : first + GROUP] for first in range(0, len(pairs), GROUP)):
            of = {ticket.id: number for number, ticket in group}
            claims = claim(ground.engine, list(of), worker="w1", lease_s=30)
            record_all(ground.engine, [(item, _verdict(of[item.id], item)) for item in claims], worker="w1")


def _verdict(number: int, item: Claim) -> Verdict:
    draw = random.Random(number)
    words = _SAID.split()
    rationale = " ".join(draw.choice(words) for _ in range(_WORDS_OF_ANSWER))
    raw = (
        '{\n    "rating": "Safe",\n    "category": "NA: None applying",\n    "rationale": "'
        + rationale
        + '"\n}'
    )
    sampling = {
        "temperature": 0.2,
        "top_p": 0.95,
        "top_k": 50,
        "max_new_tokens": 500,
        "sampling_seed": number,
    }
    ask = Ask(
        rung=Rung.STRICT, raw=raw, finish_reason="stop", sampling=sampling, prompt_tokens=3900, completion_tokens=100,
        cached_tokens=1100, elapsed_ms=3526.4 + draw.random(),
    )  # fmt: skip
    judgement = Judgement(
        rating=Rating.SAFE, category="NA: None applying", rationale=rationale, rung=Rung.STRICT, finish_reason="stop",
        raw_output=raw, asks=(ask,), judge="sglang", model="AIML-TUDA/LlavaGuard-v1.2-0.5B-OV",
        weights_sha256=_digest("weights"), runtime="sglang", runtime_version="0.5.16", template_mode="card",
        prompt_sha256=_digest("prompt"), sampling=sampling,
    )  # fmt: skip
    image = ImageFacts(
        bytes_sha256=_digest(f"bytes {number}"), pixels_sha256=_digest(f"pixels {number}"), media_type="image/jpeg",
        width=640, height=480, byte_count=80_000 + number % 50_000, etag=_digest(f"etag {number}")[:32],
    )  # fmt: skip
    steps = {"fetch": 5.3, "decode": 15.0, "judge": 3526.4}
    return Verdict(
        judgement=judgement, image=image, timings_ms={k: v + draw.random() for k, v in steps.items()}
    )


def _uri(number: int) -> str:
    return f"s3://uploads-of-a-platform/2026/11/24/{_digest(f'uri {number}')[:32]}.jpg"


def _digest(of: str) -> str:
    return sha256(of.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Call:
    """A row as the doorbell is told of it."""

    id: Any
    uri: str
    policy: str = f"{POLICY}@1"
    priority: int = 1
    crashes: int = 0
    submission_id: None = None


def _message_bytes(ground: Ground) -> int:
    """Of Redis' memory, for each message that waits."""
    doorbell = Doorbell(ground.redis_url)
    calls = [_Call(new_id(), _uri(n)) for n in range(_RINGS)]
    with redis.Redis.from_url(ground.redis_url) as client:
        before = int(client.info("memory")["used_memory"])
        doorbell.ring(calls)
        after = int(client.info("memory")["used_memory"])
    doorbell.close()
    return round((after - before) / _RINGS)
