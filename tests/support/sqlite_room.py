"""The kinds of work of an SQLite outbox on a database in memory, with a clock that a test sets.

No thread, no file and no writer: a transaction is a call, and a row is looked at where it lies.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from service.outbox.event import Event
from service.outbox.fair_share import FairShare
from service.outbox.inngest_id import InngestIds
from service.outbox.keys import Keys
from service.outbox.limits import Limits
from service.outbox.model import Batch, Retry, Settlement
from service.outbox.sqlite.appends import Append, SqliteAppends
from service.outbox.sqlite.claims import SqliteClaims
from service.outbox.sqlite.commit import transact
from service.outbox.sqlite.damage import Damage
from service.outbox.sqlite.jobs import nothing
from service.outbox.sqlite.memory import Memory
from service.outbox.sqlite.quota import StoredCounts
from service.outbox.sqlite.salvage import Salvage
from service.outbox.sqlite.settlements import SqliteSettlements
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
    """An empty outbox; `heavy_rows` are how many waiting rows make an owner's a flood."""

    def __init__(self, *, heavy_rows: int = 1000) -> None:
        self.clock, self.recorder, self.damage = Clock(), Remembering(), Damage(Path("outbox.db"))
        self.connection = empty()
        fair_share = FairShare(heavy_rows)
        self.counts = StoredCounts(Limits(10_000, 10_000), fair_share)
        self.start()

    def start(self) -> None:
        """What a process does at its start, on the same database."""
        salvage = Salvage(Path("/nonexistent"), self.damage)
        self.claims = SqliteClaims(
            self.clock,  # type: ignore[arg-type]
            self.counts,
            self.recorder,
            salvage,
        )
        self.settlements = SqliteSettlements(self.clock, self.counts, self.claims)  # type: ignore[arg-type]
        picker, memory = self.claims.picker, Memory(ids=IDS)
        self.appends = SqliteAppends(self.counts, picker, self.recorder, memory, self.clock)  # type: ignore[arg-type]
        self.recovered = self.claims.recover(self.connection)

    def at(self, ms: int) -> Room:
        """Set the clock so many milliseconds after the start."""
        self.clock.ms = START_MS + ms
        return self

    def commit(self, kind: Any, *items: Any, wanted: bool = True) -> list[Any]:
        """One transaction; `wanted` says whether the submitters wait for its results."""
        [results] = transact(self.connection, [(kind, items)], None)
        kind.committed(items, results, [wanted] * len(items))
        return list(results)

    def append(self, *events: Event, keys: Keys = ()) -> Any:
        """What the submitter of one call gets."""
        size = sum(len(event.payload) for event in events)
        express = self.counts.enter(events[0].owner, len(events), size)
        [result] = self.commit(self.appends, Append(events, keys, express))
        return result

    def claim(self, max_events: int = 100, *, wanted: bool = True, **changes: Any) -> Batch | None:
        """What the submitter of a claim gets, None where it waits on."""
        [batch] = self.commit(self.claims, ask(max_events, **changes), wanted=wanted)
        return batch  # type: ignore[no-any-return]

    def take(self, max_events: int = 100, **changes: Any) -> list[int]:
        """The seqs of a claim."""
        batch = self.claim(max_events, **changes)
        return [entry.seq for entry in batch.entries] if batch else []

    def settle(self, claim: str, *, wanted: bool = True, **named: Any) -> int:
        """How many rows were no longer under the claim."""
        [stale] = self.commit(self.settlements, Settlement(claim, **named), wanted=wanted)
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
        return {name: value for name, value in named if value is not None}


class InlineJobs:
    """Runs jobs of a room in place of its writer, one after the other."""

    def __init__(self, room: Room) -> None:
        self._room = room

    async def run(
        self, run: Callable[[sqlite3.Connection], T], then: Callable[[T], None] = nothing
    ) -> T:
        """What the job returns, which is not None; `then` gets it after the commit."""
        self._room.connection.execute("BEGIN IMMEDIATE")
        found = run(self._room.connection)
        self._room.connection.execute("COMMIT")
        assert found is not None
        then(found)
        return found


class Inline:
    """Runs reads of a room in place of its reader, one after the other."""

    def __init__(self, room: Room) -> None:
        self._room = room

    async def run(self, work: Callable[..., T], *args: Any, **named: Any) -> T:
        """What `work` returns."""
        return work(self._room.connection, *args, **named)

    run_soon = run


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


def seqs_of(batch: Batch | None) -> Sequence[int]:
    """The numbers of a batch's rows."""
    return [entry.seq for entry in batch.entries] if batch else []
