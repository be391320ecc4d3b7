"""The runs of the fake Inngest's functions, as a self-hosted Inngest v1.43 starts and ends them.

A run's whole course is written down when it starts; what is shown of it follows from the clock. An
id starts one run of a function in 24 hours. The invariant: a cancel event ends only runs whose ULID
is below its own.
"""

from __future__ import annotations

import itertools
import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from inngest_outbox.dev.fake_inngest.functions import ANY, Function
from inngest_outbox.dev.fake_inngest.ledger import Arrival
from inngest_outbox.dev.fake_inngest.ulids import ulids

RUN_ONCE_MS = 86_400_000
SCHEDULING_MS = 50  # from an event's storing to its run
FAILED = "inngest/function.failed"
_NEVER_MS = 1 << 62

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY, function TEXT NOT NULL, internal_id TEXT NOT NULL, id TEXT NOT NULL,
    key TEXT NOT NULL, started_at_ms INTEGER NOT NULL, runs_from_ms INTEGER NOT NULL,
    ends_at_ms INTEGER NOT NULL,    status TEXT NOT NULL, output BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batched (
    run_id TEXT NOT NULL, internal_id TEXT NOT NULL, event BLOB NOT NULL,
    PRIMARY KEY (internal_id, run_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS runs_by_id ON runs (id, function, started_at_ms);
CREATE INDEX IF NOT EXISTS runs_by_event ON runs (internal_id);
"""
_START = """
INSERT INTO runs SELECT :run_id, :function, :internal_id, :id, :key, :started_at_ms,
    :runs_from_ms, :ends_at_ms, :status, :output
WHERE NOT EXISTS (SELECT 1 FROM runs
    WHERE id = :id AND function = :function AND started_at_ms > :started_at_ms - :once_ms)
"""
_CANCEL = """
UPDATE runs SET status = 'Cancelled', ends_at_ms = :now_ms, output = 'null'
WHERE function = :function AND key = :key AND run_id < :ulid AND internal_id != :ulid
    AND started_at_ms <= :now_ms AND ends_at_ms > :now_ms
"""
_RESUME = """
UPDATE runs SET ends_at_ms = :now_ms, output = :output
WHERE function = :function AND key = :key AND started_at_ms <= :now_ms AND ends_at_ms > :now_ms
"""
_DEBOUNCE = """
UPDATE runs SET internal_id = :internal_id, id = :id, started_at_ms = :started_at_ms,
    runs_from_ms = :runs_from_ms, ends_at_ms = :ends_at_ms, output = :output
WHERE function = :function AND key = :key AND started_at_ms > :now_ms
"""
_STARTED = "SELECT 1 FROM runs WHERE function = ? AND started_at_ms > ? LIMIT 1"
_OPEN_BATCH = "SELECT run_id FROM runs WHERE function = ? AND started_at_ms > ?"
_BATCHED = "SELECT event FROM batched WHERE run_id = ? ORDER BY internal_id"
_FILL_BATCH = "UPDATE runs SET output = ? WHERE run_id = ?"
_CLOSE_BATCH = (
    "UPDATE runs SET started_at_ms = ?, runs_from_ms = ?, ends_at_ms = ? WHERE run_id = ?"
)
_COLUMNS = "run_id, function, internal_id, started_at_ms, runs_from_ms, ends_at_ms, status, output"
_OF_EVENT = f"""
SELECT {_COLUMNS} FROM runs WHERE started_at_ms <= ? AND (internal_id = ?
    OR run_id IN (SELECT run_id FROM batched WHERE internal_id = ?)) ORDER BY run_id DESC
"""
_ONE = f"SELECT {_COLUMNS} FROM runs WHERE run_id = ? AND started_at_ms <= ?"

_encode = msgspec.json.encode
_decode = msgspec.json.decode


class Run(msgspec.Struct, frozen=True, gc=False):
    """A run that an event started; until `runs_from_ms` it is queued.

    `status` and `output` are those of its end.
    """

    run_id: str
    function: str
    internal_id: str
    started_at_ms: int
    runs_from_ms: int
    ends_at_ms: int
    status: str
    output: bytes


class Runs:
    """The runs, in tables of `connection`; whoever calls `start` holds its transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._functions: dict[str, Function] = {}
        connection.executescript(SCHEMA)

    def declare(self, *functions: Function) -> None:
        """Register these beside those that are there. ANY ends with the first one."""
        self._functions |= {one.id: one for one in functions}

    def function(self, function_id: str) -> Function:
        """A declared function, ANY for a run that was started before."""
        return self._functions.get(function_id, ANY)

    def start(self, arrivals: Sequence[Arrival], now_ms: int) -> list[Arrival]:
        """Start the runs of these events, resume and cancel others.

        Returns the events that the runs will send, received when each run ends.
        """
        if not self._functions:
            self._start_any(arrivals, now_ms)
            return []
        met = itertools.product(arrivals, self._functions.values())
        sent = [self._meet(function, arrival, now_ms) for arrival, function in met]
        return [one for one in sent if one is not None]

    def of_event(self, internal_id: str, now_ms: int) -> list[Run]:
        """The runs that this event started, alone or in a batch, newest first."""
        given = (now_ms, internal_id, internal_id)
        return [Run(*row) for row in self._connection.execute(_OF_EVENT, given)]

    def find(self, run_id: str, now_ms: int) -> Run | None:
        """One run."""
        row = self._connection.execute(_ONE, (run_id, now_ms)).fetchone()
        return Run(*row) if row else None

    def end(self, run_id: str, status: str, output: object, now_ms: int) -> None:
        """Give a run another end, now."""
        self._connection.execute(
            "UPDATE runs SET status = ?, output = ?, ends_at_ms = ? WHERE run_id = ?",
            (status, _encode(output), now_ms, run_id),
        )

    @property
    def count(self) -> int:
        """The number of runs that were started."""
        return self._count("SELECT count(*) FROM runs")

    @property
    def most_of_an_id(self) -> int:
        """The number of runs of a function that the id with the most of them started."""
        return self._count(
            "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM runs GROUP BY id, function)"
        )

    def _count(self, query: str) -> int:
        count: int = self._connection.execute(query).fetchone()[0]
        return count

    def _start_any(self, arrivals: Sequence[Arrival], now_ms: int) -> None:
        run_ids = ulids((now_ms << 80) | secrets.randbits(79), len(arrivals))
        self._insert(
            _row(ANY, arrival, run_id, now_ms, b"null", key="")
            for arrival, run_id in zip(arrivals, run_ids, strict=True)
        )

    def _insert(self, rows: Iterable[dict[str, object]]) -> None:
        self._connection.executemany(_START, rows)

    def _meet(self, function: Function, arrival: Arrival, now_ms: int) -> Arrival | None:
        matched = {"function": function.id, "key": _key(arrival), "now_ms": now_ms}
        if function.cancel_on == arrival.name:
            self._connection.execute(_CANCEL, matched | {"ulid": arrival.server_id})
        if function.wait_for == arrival.name:
            output = _encode({"got": arrival.id})
            self._connection.execute(_RESUME, matched | {"output": output})
        if function.trigger == arrival.name:
            return self._start_one(function, arrival, now_ms)
        return None

    def _start_one(self, function: Function, arrival: Arrival, now_ms: int) -> Arrival | None:
        limited = (function.id, now_ms + SCHEDULING_MS - function.rate_limit_ms)
        if function.rate_limit_ms and self._connection.execute(_STARTED, limited).fetchone():
            return None
        delay = function.batch_ms or function.debounce_ms or SCHEDULING_MS
        row = _row(
            function,
            arrival,
            _new_ulid(now_ms + SCHEDULING_MS),
            now_ms + delay,
            _output(function, arrival),
            key=_key(arrival),
        )
        if function.batch_size:
            self._batch(function, arrival, row, now_ms)
        elif not (function.debounce_ms and self._postpone(row, now_ms)):
            sent = _sent(function, arrival, row)
            if sent is not None and function.error is None:
                row["output"] = _encode({"ids": [sent.server_id]})
            if self._connection.execute(_START, row).rowcount:
                return sent
        return None

    def _postpone(self, row: dict[str, object], now_ms: int) -> bool:
        """True while a run waits that this event replaces."""
        return self._connection.execute(_DEBOUNCE, row | {"now_ms": now_ms}).rowcount > 0

    def _batch(
        self, function: Function, arrival: Arrival, row: dict[str, object], now_ms: int
    ) -> None:
        found = self._connection.execute(_OPEN_BATCH, (function.id, now_ms)).fetchone()
        run_id = found[0] if found else row["run_id"]
        if not found:
            self._insert([row])
        joined = (run_id, arrival.server_id, _encode(arrival.id))
        self._connection.execute("INSERT OR IGNORE INTO batched VALUES (?, ?, ?)", joined)
        ids = [_decode(one) for (one,) in self._connection.execute(_BATCHED, (run_id,))]
        self._connection.execute(_FILL_BATCH, (_encode({"ids": ids}), run_id))
        if len(ids) >= function.batch_size:
            ends = now_ms + function.lasts_ms
            self._connection.execute(_CLOSE_BATCH, (now_ms, now_ms, ends, run_id))


def _row(
    function: Function,
    arrival: Arrival,
    run_id: str,
    started_at_ms: int,
    output: bytes,
    *,
    key: str,
) -> dict[str, object]:
    # A moment ahead delays a run, unless it is a batch's.
    runs_from_ms = started_at_ms if function.batch_size else max(started_at_ms, arrival.ts)
    runs_from_ms = _NEVER_MS if function.paused else runs_from_ms
    lasts = function.lasts_ms + (function.retries * function.retry_ms if function.error else 0)
    return {
        "run_id": run_id,
        "function": function.id,
        "internal_id": arrival.server_id,
        "id": arrival.id,
        "key": key,
        "started_at_ms": started_at_ms,
        "runs_from_ms": runs_from_ms,
        "ends_at_ms": runs_from_ms + lasts,
        "status": "Failed" if function.error else "Completed",
        "output": output,
        "once_ms": -_NEVER_MS if function.batch_size or function.debounce_ms else RUN_ONCE_MS,
    }


def _output(function: Function, arrival: Arrival) -> bytes:
    if function.error:
        return _encode(function.error)
    if function.wait_for:
        return _encode({"got": None})
    if function.returns is not msgspec.UNSET:
        return _encode(function.returns)
    data = _data(arrival)
    return _encode({"id": arrival.id, "name": arrival.name, "ts": arrival.ts, "data": data})


def _sent(function: Function, arrival: Arrival, row: Mapping[str, object]) -> Arrival | None:
    """The event that a run sends at its end, or Inngest's own about its failure."""
    name, data = function.sends, _data(arrival)
    if function.error:
        name = FAILED
        event = {**_event(arrival), "id": arrival.id, "ts": arrival.ts}
        run = {"function_id": f"{function.app}-{function.id}", "run_id": row["run_id"]}
        data = {**run, "error": function.error, "event": event}
    if name is None:
        return None
    at_ms = int(str(row["ends_at_ms"]))
    ulid, body = _new_ulid(at_ms), _encode({"name": name, "data": data})
    return Arrival(ulid, ulid, name, at_ms, at_ms, body)


def _event(arrival: Arrival) -> dict[str, object]:
    return _decode(arrival.event.decode(errors="replace"), type=dict[str, object])


def _data(arrival: Arrival) -> dict[str, object]:
    data = _event(arrival).get("data")
    return data if isinstance(data, dict) else {}


def _key(arrival: Arrival) -> str:
    return str(_data(arrival).get("key", ""))


def _new_ulid(at_ms: int) -> str:
    return ulids((at_ms << 80) | secrets.randbits(79), 1)[0]
