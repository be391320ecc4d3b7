"""The store on PostgreSQL beside other queues on one server, in turns.

`python -m bench.postgres_queues [--pgmq FILE]`: FILE is pgmq's public `pgmq.sql`, which is not part
of this repository. Prints medians: commits a second of appends in SQL, the server's time and log
for an event, in and out, in quiet and beside an open transaction. Compare ratios of one run only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from bench.postgres import opened
from service.outbox.model import ClaimRequest, Settlement
from service.outbox.schema import migrate
from tests.support.postgres_server import PostgresServer, find_binaries, running_postgres
from tests.support.storage import event

DATA = json.dumps({"pad": "x" * 300})
GROUP = 64
PLAIN = """
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
CREATE TABLE plain (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), data jsonb);
CREATE TABLE lease (id bigserial PRIMARY KEY, until timestamptz, data jsonb);
CREATE INDEX ON lease (id) WHERE until IS NULL;
"""
ONE = {
    "plain table": f"INSERT INTO plain (data) VALUES ('{DATA}');",
    "outbox.append": f"SELECT outbox.append('n', '{DATA}', 'u-1');",
    "pgmq.send": f"SELECT pgmq.send('bench', '{DATA}');",
}
_ARRAY = json.dumps([json.loads(DATA)] * GROUP)
_MANY = json.dumps([{"name": "n", "data": json.loads(DATA)}] * GROUP)
_MESSAGES = f"(SELECT array_agg(e) FROM jsonb_array_elements('{_ARRAY}') AS e)"
MANY = {
    "plain table": f"INSERT INTO plain (data) SELECT jsonb_array_elements('{_ARRAY}');",
    "outbox.append_many": f"SELECT outbox.append_many('{_MANY}');",
    "pgmq.send_batch": f"SELECT pgmq.send_batch('bench', {_MESSAGES});",
}
# What others do on the way in and out, a group at a time; the last two go together.
_TAKE = """
UPDATE lease SET until = now() + interval '60 s' WHERE id IN (
    SELECT id FROM lease WHERE until IS NULL ORDER BY id LIMIT 64 FOR UPDATE SKIP LOCKED)
RETURNING id, data
"""
_SEND = """
SELECT pgmq.send_batch('bench', (
    SELECT array_agg(e) FROM jsonb_array_elements(%(array)s::jsonb) AS e))
"""
OTHERS = {
    "lease table": (
        "INSERT INTO lease (data) SELECT jsonb_array_elements(%(array)s::jsonb)",
        _TAKE,
        "DELETE FROM lease WHERE id = ANY(%(ids)s)",
    ),
    "pgmq": (
        _SEND,
        "SELECT msg_id, message FROM pgmq.read('bench', 60, 64)",
        "SELECT pgmq.delete('bench', %(ids)s::bigint[])",
    ),
}
EMPTY = "TRUNCATE plain; TRUNCATE lease; DELETE FROM outbox.inbox"
_EXEC = "SELECT sum(total_exec_time) * 1000 FROM pg_stat_statements WHERE toplevel"
_LOG = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"


class Meter:
    """The server's time and log since the last reading, as statements count them."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self.read()

    def read(self) -> tuple[float, float]:
        """Microseconds and bytes since the last reading."""
        [(spent,)] = self._connection.execute(_EXEC).fetchall()
        [(log,)] = self._connection.execute(_LOG).fetchall()
        self._connection.execute("SELECT pg_stat_statements_reset()")
        since = float(log) - getattr(self, "_log", 0.0)
        self._log = float(log)
        return float(spent or 0), since


def prepared(server: PostgresServer, pgmq: Path | None) -> Iterator[str]:
    """A database with all contestants."""
    with server.database("queues") as url:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(PLAIN)
            if pgmq:
                connection.execute(pgmq.read_bytes())
                connection.execute("SELECT pgmq.create('bench')")
        yield url


def commits(url: str, statement: str, clients: int, seconds: int) -> float:
    """Transactions a second of pgbench."""
    binaries = find_binaries()
    assert binaries is not None
    host, name = url.partition("host=")[2], url.partition("@/")[2].partition("?")[0]
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(statement + "\n")
        script.flush()
        command = [str(binaries / "pgbench"), "-n", "-M", "simple", "-c", str(clients), "-j", "2"]
        command += ["-T", str(seconds), "-f", script.name, "-h", host, "-U", "outbox", name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(said.split("tps = ")[1].split()[0])


def appends(url: str, statements: dict[str, str], clients: int, rounds: int, seconds: int) -> None:
    """Print commits, server time and log of appends by clients of their own."""
    meter, seen = Meter(url), {name: [] for name in statements}  # type: ignore[var-annotated]
    for _ in range(rounds):
        for name, statement in statements.items():
            meter.read()
            rate = commits(url, statement, clients, seconds)
            spent, log = meter.read()
            seen[name].append((rate, spent / (rate * seconds), log / (rate * seconds)))
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(EMPTY)
                if "pgmq" in name:
                    connection.execute("SELECT pgmq.purge_queue('bench')")
    plain = statistics.median(one[0] for one in seen["plain table"])
    print(f"\n{clients} clients{'':14}{'commits/s':>10}{'of plain':>10}{'us':>8}{'log':>8}")
    for name, found in seen.items():
        rate, spent, log = (statistics.median(one[at] for one in found) for at in range(3))
        print(f"{name:24}{rate:10,.0f}{rate / plain:10.2f}{spent:8,.0f}{log:8,.0f}")


async def ours(url: str, groups: int, *, out: bool) -> None:
    """Put groups in by the service's store, or take them out."""
    async with opened(url) as outbox:
        for _ in range(groups):
            if out:
                batch = await outbox.queue.claim(ClaimRequest(GROUP, 2**22, 60.0))
                seqs = [entry.seq for entry in batch.entries]
                await outbox.queue.settle(Settlement(batch.claim, delivered=seqs))
            else:
                events = (event(f"u-{n % 8}", size=400) for n in range(GROUP))
                await asyncio.gather(*(outbox.intake.append(one) for one in events))


def others(url: str, name: str, groups: int, *, out: bool) -> None:
    """The same by the statements of another queue, prepared."""
    into, read, delete = OTHERS[name]
    with psycopg.connect(url, autocommit=True, prepare_threshold=1) as connection:
        for _ in range(groups):
            if not out:
                connection.execute(into.encode(), {"array": _ARRAY})
                continue
            rows: list[Any] = connection.execute(read.encode()).fetchall()
            connection.execute(delete.encode(), {"ids": [row[0] for row in rows]})


def in_and_out(url: str, names: list[str], groups: int, rounds: int, told: str) -> None:
    """Print the server's time and the log of an event, in groups."""
    meter, events = Meter(url), groups * GROUP
    seen: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            figures: list[float] = []
            for out in (False, True):
                meter.read()
                if name == "ours":
                    asyncio.run(ours(url, groups, out=out))
                else:
                    others(url, name, groups, out=out)
                spent, log = meter.read()
                figures += [spent / events, log / events]
            seen[name].append(tuple(figures))
    print(f"\n{told:24}{'in us':>8}{'log':>8}{'out us':>8}{'log':>8}   out us of each round")
    for name, found in seen.items():
        line = "".join(f"{statistics.median(one[at] for one in found):8,.0f}" for at in range(4))
        print(f"{name:24}{line}   {', '.join(f'{one[2]:.0f}' for one in found)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pgmq", type=Path, help="pgmq's public pgmq.sql")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--groups", type=int, default=200)
    options = parser.parse_args()
    settings = {"shared_preload_libraries": "pg_stat_statements", "max_connections": "150"}
    with running_postgres(durable=True, settings=settings) as server:
        if server is None:
            sys.exit("there is no PostgreSQL on this machine")
        for url in prepared(server, options.pgmq):
            kept = {k: v for k, v in ONE.items() if options.pgmq or "pgmq" not in k}
            for clients in (32, 64):
                appends(url, kept, clients, options.rounds, options.seconds)
            many = {k: v for k, v in MANY.items() if options.pgmq or "pgmq" not in k}
            appends(url, many, 8, options.rounds, options.seconds)
            names = ["ours", "lease table", *(["pgmq"] if options.pgmq else [])]
            in_and_out(url, names, options.groups, options.rounds, "in quiet")
            with psycopg.connect(url) as idle:
                idle.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                idle.execute("SELECT pg_current_snapshot()")
                in_and_out(url, names, options.groups, options.rounds, "beside a transaction")


if __name__ == "__main__":
    main()
