"""The kinds of work of an SQLite outbox on a database in memory, with a clock that a test sets.

No thread, no file and no writer: a transaction is a call, and a row is looked at where it lies.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from service.outbox.event import Event
from service.outbox.inngest_id import InngestIds
from service.outbox.keys import Keys
from service.outbox.limits import FairShare, Limits
from service.outbox.model import Batch, Retry, Settlement
from service.outbox.sqlite.appends import Append, SqliteAppends
from service.outbox.sqlite.claims import SqliteClaims
from service.outbox.sqlite.queue import SqliteSettlements
from service.outbox.sqlite.state import CachedState, StoredCounts
from tests.support.delivery_world import Remembering
from tests.support.storage import ask

T = TypeVar("T")
MIGRATIONS = Path(__file__).parents[2] / "migrations" / "sqlite"
PLACES = ("ready", "claims", "sent", "done")
START_MS = 1_000_000
IDS = InngestIds(b"prefix")


class Clock:
    """Says what it is set to."""

    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms


class Room:
    """An empty outbox; `heavy_rows` are how many waiting rows make an owner noisy."""

    def __init__(self, *, heavy_rows: int = 1000) -> None:
        self.clock, self.recorder = Clock(), Remembering()
        self.connection = empty()
        fair_share = FairShare(heavy_rows)
        self.counts = StoredCounts(Limits(10_000, 10_000), fair_share)
        self.start()

    def start(self) -> None:
        """What a process does at its start, on the same database."""
        self.state = CachedState()
        self.state.ids = IDS
        self.claims = SqliteClaims(self.clock)  # type: ignore[arg-type]
        self.settlements = SqliteSettlements(
            self.clock,  # type: ignore[arg-type]
            self.state,
            self.counts,
            self.claims,
        )
        self.appends = SqliteAppends(
            self.counts,
            self.claims.picker,
            self.recorder,
            self.state,
            self.clock,  # type: ignore[arg-type]
        )
        self.recovered = self.claims.recover(self.connection)

    def at(self, ms: int) -> Room:
        """Set the clock so many milliseconds after the start."""
        self.clock.ms = START_MS + ms
        return self

    def append(self, *events: Event, keys: Keys = ()) -> Any:
        """What the submitter of one call gets."""
        size = sum(len(event.payload) for event in events)
        fair_share = self.counts.enter(events[0].owner, len(events), size)
        items = [Append(events, keys, fair_share)]
        with self.transaction():
            results = self.appends.apply(self.connection, items)
        self.appends.committed(items, results)
        return results[0]

    def claim(self, max_events: int = 100, *, wanted: bool = True, **changes: Any) -> Batch | None:
        """What the submitter of a claim gets, None where it waits on."""
        with self.transaction():
            batches = self.claims.apply(self.connection, [ask(max_events, **changes)])
        self.claims.committed(batches, [wanted])
        return batches[0]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def take(self, max_events: int = 100, **changes: Any) -> list[int]:
        """The seqs of a claim."""
        batch = self.claim(max_events, **changes)
        return [entry.seq for entry in batch.entries] if batch else []

    def settle(self, claim: str, *, wanted: bool = True, **named: Any) -> int:
        """How many rows were no longer under the claim."""
        job = self.settlements.job(Settlement(claim, **named))
        with self.transaction():
            stale = job.run(self.connection)
        job.then(stale, wanted)
        return int(stale)

    def put_back(self, batch: Batch, *seqs: int, delay: float = 0, isolated: bool = False) -> int:
        """Settle these rows as to be tried again."""
        again = [Retry(seq, delay, attempts=0, isolated=isolated) for seq in seqs]
        return self.settle(batch.claim, retry=again)

    def places(self) -> dict[int, str]:
        """Where each row is. Fails unless it is in exactly one place."""
        found: dict[int, str] = {}
        for place in PLACES:
            for (seq,) in self.connection.execute(f"SELECT seq FROM outbox_{place}"):
                assert seq not in found
                found[seq] = place
        assert set(found) == {seq for (seq,) in self.connection.execute("SELECT seq FROM outbox")}
        return found

    def row(self, seq: int, place: str | None = None) -> dict[str, Any]:
        """All of a row in the place where it is, or in the table `place`; the nulls left out."""
        table = place or f"outbox_{self.places()[seq]}"
        cursor = self.connection.execute(f"SELECT * FROM {table} WHERE seq = ?", (seq,))
        [values] = cursor.fetchall()
        named = zip((column for column, *_ in cursor.description), values, strict=True)
        return {name: value for name, value in named if value is not None and name != "ran_ms"}


@functools.cache
def _schema() -> str:
    return "".join(path.read_text() for path in sorted(MIGRATIONS.glob("*.sql")))


class MemoryConnection(sqlite3.Connection):
    """Closed when nobody has it any more.

    Python 3.13 tells of a connection that nobody closed, in whichever test runs then.
    """

    def __del__(self) -> None:
        with contextlib.suppress(sqlite3.ProgrammingError):  # on another thread
            self.close()


def empty() -> sqlite3.Connection:
    """An empty outbox in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None, factory=MemoryConnection)
    connection.executescript(_schema())
    return connection
