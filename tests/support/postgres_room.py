"""The statements of a PostgreSQL outbox on one session, with a clock that a test sets.

All of a test is one transaction, which is rolled back. No pool and no tasks: a statement is a call,
and a row is looked at where it lies. Rows come in the order of their insertion where a statement
asks for no other one, as indexes are not used and no room of removed rows is used again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Self

import psycopg
from psycopg.rows import dict_row

from service.outbox.event import Event
from service.outbox.keys import IdempotencyKey
from service.outbox.model import Settlement
from service.outbox.postgres import appends, claims, leases, marks, settlements
from service.outbox.postgres.appends import Append
from tests.support.storage import ask

SIZE = 200
START_MS = 1_700_000_000_000
# What a room's database has besides the outbox: functions that hide the server's.
CLOCK = """
CREATE SCHEMA clock;
CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz STABLE LANGUAGE sql
    RETURN current_setting('clock.now')::timestamptz;
CREATE FUNCTION clock.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql
    RETURN current_setting('clock.now')::timestamptz;
"""
_SET_UP = """
TRUNCATE outbox_ready, outbox_claims, outbox_sent, outbox_changes;
SET LOCAL search_path = clock, public, pg_catalog;
SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off;
SET LOCAL enable_bitmapscan = off;
SELECT setval('outbox_seq_seq', 1, false), setval('outbox_changes_no_seq', 1, false);
"""
_COLUMNS = """
SELECT attname, atttypid = 'timestamptz'::regtype FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_SECONDS = f"extract(epoch FROM {{0}})::float8 - {START_MS // 1000} AS {{0}}"


class Room:
    """What a session does. To set the clock it needs a database that has the schema of CLOCK."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    @classmethod
    def empty(cls, connection: psycopg.Connection[Any]) -> Self:
        """A room at its start; the connection is in a transaction that is rolled back."""
        room = cls(connection)
        room.run(_SET_UP)
        room.at(0)
        return room

    def run(self, statement: str, given: Any = None) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        cursor = self.connection.execute(statement, given)
        return cursor.fetchall() if cursor.description else []

    def at(self, seconds: float) -> Room:
        """Set the clock so many seconds after the start."""
        now = moment(START_MS + round(seconds * 1000))
        self.run("SELECT set_config('clock.now', %s, true)", [now.isoformat()])
        return self

    def append(self, *events: Event, **changes: Any) -> list[int]:
        """The seqs of one call's new events."""
        return [seq for _, seq in self.store(made_call(*events, **changes))]

    def store(self, *calls: Append, repeated: bool = False) -> list[tuple[str, int]]:
        """The ids and seqs that one statement stores."""
        given = {**appends.columns(calls), "repeated": repeated}
        return [(one, seq) for one, seq, _ in self.run(appends.APPEND, given)]

    def wait(
        self,
        *seqs: int,
        due: float | None = None,
        size: int = SIZE,
        isolated: bool = False,
        express: bool = False,
    ) -> None:
        """Put rows in a lane in this order: new ones, or `due` so many seconds after the start."""
        due_at = None if due is None else after(due)
        for seq in seqs:
            one = {"event_id": f"e-{seq}", "name": "n", "owner": "o", "user_id": "u"}
            self.put("", seq=seq, accepted_at_ms=seq, payload=b"%d" % seq, **one)
            lane = {"due_at": due_at, "isolated": isolated, "payload_bytes": size}
            self.put("ready", seq=seq, express_seq=seq if express else None, **lane)

    def claim(
        self,
        max_events: int = 100,
        *,
        claim: str = "c",
        window: int = 1000,
        express: bool = False,
        turn: bool = False,
        **changes: Any,
    ) -> list[tuple[Any, ...]]:
        """The rows of a claim; with `express`, of one that has a share for express rows."""
        statement = claims.CLAIM_EXPRESS if express else claims.CLAIM
        wanted = ask(max_events, **changes)
        return self.run(statement, claims.claim_values(wanted, claim, window, express_turn=turn))

    def take(self, max_events: int = 100, **changes: Any) -> list[int]:
        """The seqs of a claim."""
        return [seq for seq, *_ in self.claim(max_events, **changes)]

    def next_due(self, *, isolated: bool = True, window: int = 1000) -> tuple[float | None, bool]:
        """Seconds until a row is due, and whether new rows may lie beyond the window."""
        given = {"isolated": isolated, "window": window}
        [(seconds, more_beyond)] = self.run(claims.NEXT_DUE, given)
        return seconds, more_beyond

    def settle(self, claim: str, *, repeated: bool = False, **named: Any) -> tuple[int, bool, bool]:
        """How many rows were stale, whether any is due at once, whether the claim is over."""
        given = settlements.settle_values(Settlement(claim, **named))
        [answer] = self.run(settlements.SETTLE, {**given, "repeated": repeated})
        stale, due_now, is_over = answer
        return stale, due_now, is_over

    def release(self, *claims: str, sent: bool = True) -> int:
        """How many rows of these claims became due."""
        return int(self.run(leases.RELEASE, {"claims": list(claims), "sent": sent})[0][0])

    def expire(self) -> int:
        """How many rows became due because their lease is over."""
        return int(self.run(leases.EXPIRE, {"sent": True})[0][0])

    def look(self, interval_seconds: float = 0.0) -> list[tuple[Any, ...]]:
        """What a look at the marks finds."""
        return self.run(marks.LOOK, {"interval_seconds": interval_seconds})

    def close_partition(self) -> None:
        """Make the next partition, and close the open one."""
        assert self.run("SELECT outbox_make_partition()") == [(True,)]
        assert self.run("SELECT outbox_close_partition()") == [(True,)]

    def put(self, table: str, **values: Any) -> None:
        """Insert a row as it is."""
        names, places = ", ".join(values), ", ".join(f"%({name})s" for name in values)
        self.run(f"INSERT INTO {_named(table)} ({names}) VALUES ({places})", values)

    def mark(self, **values: Any) -> None:
        """Make a new mark that differs from the one before in these values."""
        columns = [name for name, _ in self.run(_COLUMNS, ["outbox_marks"])]
        columns = [name for name in columns if name not in {"no", *values}]
        names = ", ".join([*columns, *values])
        places = ", ".join([*columns, *(f"%({name})s" for name in values)])
        self.run(f"INSERT INTO outbox_marks ({names}) SELECT {places} FROM outbox_mark", values)

    def table(self, name: str) -> list[dict[str, Any]]:
        """All rows of a table or view; times are in seconds after the start."""
        columns = self.run(_COLUMNS, [_named(name)])
        names = ", ".join(_SECONDS.format(one) if timed else one for one, timed in columns)
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(f"SELECT {names} FROM {_named(name)}").fetchall()

    def rows(self, place: str) -> dict[int, dict[str, Any]]:
        """The rows of a place by seq; the nulls left out."""
        found = {}
        for row in self.table(place):
            seq = row.pop("seq")
            found[seq] = {name: value for name, value in row.items() if value is not None}
        return found

    def places(self) -> dict[int, str]:
        """Where each event is: exactly one place knows it."""
        ready, sent, done = (self.rows(place) for place in ("ready", "sent", "done"))
        claimed = [seq for claim in self.table("claims") for seq in claim["seqs"]]
        pairs = [(seq, "claims") for seq in claimed]
        for place, rows in (("ready", ready), ("sent", sent), ("done", done)):
            pairs += [(seq, place) for seq in rows]
        assert sorted(pairs) == sorted(dict(pairs).items())
        assert set(dict(pairs)) == {seq for (seq,) in self.run("SELECT seq FROM outbox")}
        return dict(sorted(pairs))


class RoomPool:
    """Runs a store's statements in a room, and notes them; fails where `error` is set."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.returns = 0
        self.asked: list[tuple[str, Any, dict[str, Any]]] = []
        self.error: Exception | None = None

    async def run(self, statement: str, given: Any = None, **how: Any) -> list[tuple[Any, ...]]:
        self.asked.append((statement, given, how))
        if self.error:
            raise self.error
        return self._room.run(statement, given)

    ask = run


def _named(table: str) -> str:
    return f"outbox_{table}".rstrip("_")


def made_call(
    *events: Event,
    keys: Sequence[IdempotencyKey | None] | None = None,
    express: bool = False,
) -> Append:
    """A call of these events, which nobody waits for."""
    nobody: Any = None
    return Append(events, keys or [None] * len(events), express, nobody, deadline=0.0)


def moment(ms: int) -> dt.datetime:
    """The time so many milliseconds after 1970."""
    return dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(milliseconds=ms)


def after(seconds: float) -> dt.datetime:
    """The time so many seconds after a room's start."""
    return moment(START_MS + round(seconds * 1000))
