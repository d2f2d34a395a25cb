"""What stands beside every figure: plain Celery on the same Redis, with the settings that its documentation advises.

usage: python -m bench.queue.peers THREADS      a worker for both tasks; send.py and drains are in the parts
"""

import sys
from datetime import UTC, datetime
from functools import cache
from uuid import UUID, uuid4

from sqlalchemy import Engine
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel, create_engine

from bench.plain_celery import plain_celery
from moderation.ledger.engine import ledger_url
from moderation.settings import ServiceSettings

QUEUE = "celery"


class Apart(SQLModel, registry=registry()):
    """Tables that are none of ours."""


class PeerVerdict(Apart, table=True):
    """What a first version of such a service writes: one row a verdict, by the ORM."""

    __tablename__ = "peer_verdict"

    id: UUID = Field(primary_key=True)
    uri: str
    policy: str
    rating: str
    category: str
    rationale: str
    created_at: datetime


_SERVICES = ServiceSettings()
app = plain_celery(
    _SERVICES.redis_url.get_secret_value() if _SERVICES.redis_url else "redis://127.0.0.1:1",
    worker_pool="threads",
    worker_send_task_events=True,  # as ours: Flower shows nothing without them
)


@cache
def engine() -> Engine:
    assert _SERVICES.database_url is not None
    return create_engine(ledger_url(_SERVICES.database_url.get_secret_value()), pool_size=8)


@app.task(name="peer.nothing")
def nothing(uri: str, policy: str) -> None:
    """A bare no-op."""


@app.task(name="peer.insert")
def insert(uri: str, policy: str) -> None:
    """One naive insert: a session, a row, a commit."""
    with Session(engine()) as session:
        session.add(
            PeerVerdict(
                id=uuid4(), uri=uri, policy=policy, rating="Safe", category="NA", rationale="A picture.",
                created_at=datetime.now(UTC),
            )
        )  # fmt: skip
        session.commit()


if __name__ == "__main__":
    app.Worker(
        concurrency=int(sys.argv[1]), quiet=True, without_gossip=True, without_mingle=True, loglevel="WARNING"
    ).start()
