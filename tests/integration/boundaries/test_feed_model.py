"""The feed against a model, driven by hypothesis, on clusters that stand before a boundary of transaction ids.

Transactions begin, write, and are committed or rolled back in any order; ids are burned; Postgres restarts, and its
next id jumps to the next boundary. Readers read, acknowledge or not, and are closed and opened anew. In the end each
reader was given what is in the table, in commit order, once; of a named one counts what it acknowledged.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from consumer.feed import Cursor, Feed, FeedSettings
from moderation.ledger.engine import open_ledger
from moderation.ledger.feed import Filter, read
from moderation.services.postgres import LocalPostgres
from moderation.settings import LedgerSettings
from tests.support.crossing import BOUNDARIES, FILTERS, burn
from tests.support.given_out import compare, recorded_in
from tests.support.recorded import record
from tests.support.transaction_ids import cluster_at, go_on_at, next_id

OPEN_MOST = 8

kinds = st.fixed_dictionaries(
    {
        "rating": st.sampled_from(["Safe", "Unsafe"]),
        "batch": st.sampled_from([None, "b0", "b1"]),
        "policy": st.sampled_from(["llavaguard-default", "strict"]),
    }
)
numbers = st.integers(0, 7)  # of a transaction or a reader, counted round
writes = st.tuples(st.just("write"), numbers, st.integers(1, 4), kinds)
moves = st.one_of(
    st.tuples(st.just("begin")),
    writes,
    writes,
    st.tuples(st.just("end"), numbers, st.sampled_from(["commit", "commit", "commit", "rollback"])),
    st.tuples(st.just("burn"), st.integers(1, 12)),
    st.tuples(st.just("read"), numbers, st.booleans()),
    st.tuples(st.just("reopen"), numbers),
)
rare_moves = st.one_of(*[moves] * 12, st.tuples(st.sampled_from(["restart", "jump"])))
readers = st.tuples(st.sampled_from(sorted(FILTERS)), st.sampled_from([1, 2, 7, 50]), st.booleans())


@dataclass
class Reader:
    """A feed that is opened anew behind what it was given, or, if it is named, behind what it acknowledged."""

    number: int
    url: str
    wanted: dict[str, str]
    size: int
    named: bool
    taken: list[str] = field(default_factory=list)
    place: Cursor | None = None
    feed: Feed | None = None

    def open(self) -> Feed:
        if self.feed is None:
            where: dict[str, Any] = {"consumer": f"c{self.number}"} if self.named else {"after": self.place}
            size = FeedSettings(batch_size=self.size)
            self.feed = Feed(database_url=self.url, settings=size, **where, **self.wanted)
        return self.feed

    def close(self) -> None:
        if self.feed is not None:
            self.feed.close()
            self.feed = None

    def read(self, *, acknowledges: bool) -> bool:
        """Whether anything came. What a named reader does not acknowledge comes again once it is opened anew."""
        feed = self.open()
        batch = feed.next_batch()
        self.place = feed.cursor
        if self.named and batch and not acknowledges:
            self.close()
            return True
        if self.named and batch:
            feed.acknowledge()
        self.taken += [str(verdict.assessment_id) for verdict in batch]
        return bool(batch)


class History:
    """What happens to one cluster."""

    def __init__(
        self, server: LocalPostgres, folder: Path, kinds_of_readers: list[tuple[str, int, bool]]
    ) -> None:
        self.server = server
        self.folder = folder
        self.open: list[Connection] = []
        self.written = 0
        self.readers = [
            Reader(number, server.url, FILTERS[name], size, named)
            for number, (name, size, named) in enumerate(kinds_of_readers)
        ]
        self.ledger = open_ledger(server.url)
        self.writers: Engine = open_ledger(server.url, LedgerSettings(pool_size=OPEN_MOST))

    def do(self, move: tuple[Any, ...]) -> None:
        getattr(self, move[0])(*move[1:])

    def begin(self) -> None:
        if len(self.open) < OPEN_MOST:
            connection = self.writers.connect().execution_options(isolation_level="READ COMMITTED")
            connection.execute(text("SELECT pg_current_xact_id()"))
            self.open.append(connection)

    def write(self, number: int, count: int, kind: dict[str, Any]) -> None:
        if not self.open:
            self.begin()
        record(self.open[number % len(self.open)], count, first=self.written, **kind)
        self.written += count

    def end(self, number: int, how: str) -> None:
        if self.open:
            connection = self.open.pop(number % len(self.open))
            getattr(connection, how)()
            connection.close()

    def burn(self, ids: int) -> None:
        burn(self.ledger, ids)

    def read(self, number: int, acknowledges: bool) -> None:
        self.readers[number % len(self.readers)].read(acknowledges=acknowledges)

    def reopen(self, number: int) -> None:
        self.readers[number % len(self.readers)].close()

    def restart(self) -> None:
        self._away(lambda: self.server.restart("immediate"))

    def jump(self) -> None:
        """To the boundary after the one that is near, if rows of both can be in one cluster: ids less than 2^31 apart."""
        here = next_id(self.server)
        ahead = next((b for b in BOUNDARIES if b > here + 1_000), None)
        if ahead is not None and ahead - here < 2**31 - 1_000_000:
            event("jumped")
            self._away(lambda: go_on_at(self.server, self.folder, ahead))

    def finish(self) -> None:
        while self.open:
            self.end(0, "commit")
        for reader in self.readers:
            while reader.read(acknowledges=True):
                pass
            reader.close()
            wanted = [row.id for row in recorded_in(self.ledger) if row.passes(reader.wanted)]
            found = compare(wanted, reader.taken)
            assert found.exact, f"{reader.wanted}, {reader.size} at a time, named: {reader.named}: {found}"
        assert read(self.ledger, Cursor(1, 0, 0), Filter(), limit=10_000).done

    def close(self) -> None:
        for connection in self.open:
            connection.invalidate()
            connection.close()
        self.open = []
        for reader in self.readers:
            reader.close()
        for engine in (self.ledger, self.writers):
            engine.dispose()

    def _away(self, change: Any) -> None:
        """Postgres goes away for a moment, and with it all that was open."""
        self.close()
        change()


@settings(
    max_examples=20,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    start=st.sampled_from(BOUNDARIES),
    before=st.integers(0, 12),
    kinds_of_readers=st.lists(readers, min_size=2, max_size=4),
    happens=st.lists(rare_moves, min_size=10, max_size=60),
)
def test_whatever_happens_each_reader_is_given_the_table_in_commit_order(
    template: Path,
    tmp_path: Path,
    start: int,
    before: int,
    kinds_of_readers: list[tuple[str, int, bool]],
    happens: list[tuple[Any, ...]],
) -> None:
    folder = Path(tempfile.mkdtemp(dir=tmp_path)) / "postgres"
    with cluster_at(template, folder, start - before) as server:
        history = History(server, folder, kinds_of_readers)
        try:
            for move in happens:
                history.do(move)
            history.finish()
        finally:
            history.close()
