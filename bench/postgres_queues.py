"""The store on PostgreSQL beside other queues on one server, in turns.

`python -m bench.postgres_queues [--peer FILE …]`. FILE has the statements of another queue, which
is no part of this repository, in the form of our own: SETUP makes the queue `bench`, ONE puts in
`%(data)s`, MANY the elements of `%(array)s`, TICK follows MANY where there is one, TAKE returns
rows that begin with an id, DONE ends `%(ids)s`, EMPTY removes all. Prints medians: commits a second
of appends in SQL, the server's time, log and pages for an event, in and out, in quiet and beside an
open transaction, and the size of waiting events. `--sync` stands for a slower disk. Compare ratios
of one run only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import psycopg

from bench.postgres import opened
from bench.processes import postgres
from inngest_outbox.outbox.model import ClaimRequest, Settlement
from inngest_outbox.outbox.queries import statements
from inngest_outbox.outbox.schema import migrate
from tests.support.postgres_server import find_binaries
from tests.support.storage import event

DATA = json.dumps({"pad": "x" * 300})
GROUP = 64
ARRAY = json.dumps([json.loads(DATA)] * GROUP)
_MANY = json.dumps([{"name": "n", "data": json.loads(DATA), "user_id": "u-1"}] * GROUP)
PLAIN = """
-- name: SETUP
CREATE TABLE plain (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), data jsonb)
-- name: ONE
INSERT INTO plain (data) VALUES (%(data)s)
-- name: MANY
INSERT INTO plain (data) SELECT jsonb_array_elements(%(array)s::jsonb)
-- name: EMPTY
TRUNCATE plain
"""
BY_HAND = """
-- name: SETUP
CREATE TABLE by_hand (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
                      at timestamptz NOT NULL DEFAULT now(), name text NOT NULL,
                      user_id text NOT NULL, data jsonb NOT NULL)
-- name: ONE
INSERT INTO by_hand (name, user_id, data) VALUES ('n', 'u-1', %(data)s) RETURNING id
-- name: MANY
INSERT INTO by_hand (name, user_id, data)
SELECT 'n', 'u-1', jsonb_array_elements(%(array)s::jsonb) RETURNING id
-- name: EMPTY
TRUNCATE by_hand
"""
LEASE = """
-- name: SETUP
CREATE TABLE lease (id bigserial PRIMARY KEY, until timestamptz, data jsonb);
CREATE INDEX ON lease (id) WHERE until IS NULL
-- name: MANY
INSERT INTO lease (data) SELECT jsonb_array_elements(%(array)s::jsonb)
-- name: TAKE
UPDATE lease SET until = now() + interval '60 s' WHERE id IN (
    SELECT id FROM lease WHERE until IS NULL ORDER BY id LIMIT 64 FOR UPDATE SKIP LOCKED)
RETURNING id, data
-- name: DONE
DELETE FROM lease WHERE id = ANY(%(ids)s)
-- name: EMPTY
TRUNCATE lease
"""
OURS = f"""
-- name: ONE
SELECT outbox.append('n', %(data)s, 'u-1')
-- name: MANY
SELECT outbox.append_many('{_MANY}')
-- name: EMPTY
DELETE FROM outbox.inbox
"""
_SPENT = """
SELECT sum(total_exec_time) * 1000, sum(shared_blks_hit + shared_blks_read),
       pg_current_wal_insert_lsn() - '0/0'::pg_lsn
FROM public.pg_stat_statements WHERE toplevel
"""
_GIVEN_UP_US = 1000.0  # a queue that costs more has no further rounds
_SIZE = "SELECT pg_database_size(current_database())"


class Spent(NamedTuple):
    """The server's microseconds, pages and bytes of log."""

    us: float
    pages: float
    log: float


class Meter:
    """The server's time since the last reading, as its statements count it."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._log = 0.0

    def read(self, events: float = 1.0) -> Spent:
        """The time spent on each of `events`."""
        [(us, pages, log)] = self._connection.execute(_SPENT).fetchall()
        self._connection.execute("SELECT public.pg_stat_statements_reset()")
        since, self._log = float(log) - self._log, float(log)
        return Spent(float(us or 0) / events, float(pages or 0) / events, since / events)


def run_client(url: str, program: str, *arguments: str, script: str) -> str:
    """The output of pgbench or psql for a script."""
    binaries = find_binaries()
    assert binaries is not None
    host, name = url.partition("host=")[2], url.partition("@/")[2].partition("?")[0]
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script + ";\n")
        file.flush()
        command = [str(binaries / program), *arguments, "-f", file.name]
        command += ["-h", host, "-U", "outbox", name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def commits(url: str, statement: str, clients: int, seconds: int) -> float:
    """Transactions a second of pgbench."""
    text = statement.replace("%(data)s", f"'{DATA}'").replace("%(array)s", f"'{ARRAY}'")
    given = ("-n", "-M", "simple", "-c", str(clients), "-j", "2", "-T", str(seconds))
    said = ""
    while "tps = " not in said:  # a busy machine may not have connected all in time
        said = run_client(url, "pgbench", *given, script=" ".join(text.split()))
    return float(said.split("tps = ")[1].split()[0])


def appends(
    url: str, queues: Mapping[str, Mapping[str, str]], kind: str, clients: int, rounds: int
) -> None:
    """Print commits, server time and log of appends by clients of their own."""
    meter, seconds = Meter(url), 3
    seen: dict[str, list[tuple[float, float, float]]] = {}
    for _ in range(rounds):
        for name, queue in queues.items():
            if kind not in queue:
                continue
            meter.read()
            rate = commits(url, queue[kind], clients, seconds)
            spent = meter.read(rate * seconds)
            seen.setdefault(name, []).append((rate, spent.us, spent.log))
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(queue["EMPTY"].encode())
    plain = statistics.median(one[0] for one in seen["plain table"])
    print(f"\n{kind}, {clients} clients{'':8}{'commits/s':>10}{'of plain':>10}{'us':>8}{'log':>8}")
    for name, found in seen.items():
        rate, spent_us, log = (statistics.median(one[at] for one in found) for at in range(3))
        print(f"{name:24}{rate:10,.0f}{rate / plain:10.2f}{spent_us:8,.0f}{log:8,.0f}")


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


def others(url: str, queue: Mapping[str, str], groups: int, *, out: bool) -> None:
    """The same by the statements of another queue, prepared."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=1) as connection:
        for _ in range(groups):
            if out:
                rows = connection.execute(queue["TAKE"].encode()).fetchall()
                connection.execute(queue["DONE"].encode(), {"ids": [row[0] for row in rows]})
                continue
            connection.execute(queue["MANY"].encode(), {"array": ARRAY})
            if tick := queue.get("TICK"):
                connection.execute(tick.encode())


def size_of(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        [(size,)] = connection.execute(_SIZE).fetchall()
        return int(size)


def pass_through(
    url: str, queues: Mapping[str, Mapping[str, str]], groups: int, told: str, seconds: float
) -> None:
    """Print what an event costs in and out, in groups, and the bytes that it takes meanwhile.

    Rounds begin for so many seconds.
    """
    meter, events, until = Meter(url), groups * GROUP, time.monotonic() + seconds
    seen: dict[str, list[tuple[Spent, Spent, float]]] = {}
    while time.monotonic() < until:
        for name, queue in queues.items():
            earlier = seen.get(name, [])
            if (name != "ours" and "TAKE" not in queue) or (
                earlier and earlier[-1][1].us > _GIVEN_UP_US
            ):
                continue
            found, before, grown = [], size_of(url), 0.0
            for out in (False, True):
                meter.read()
                if name == "ours":
                    asyncio.run(ours(url, groups, out=out))
                else:
                    others(url, queue, groups, out=out)
                found.append(meter.read(events))
                grown = grown or (size_of(url) - before) / events
            seen.setdefault(name, []).append((found[0], found[1], grown))
    each = f"{'us':>8}{'pages':>8}{'log':>8}"
    print(
        f"\n{told}, {events:,} a round{'':4}in{each}  out{each}{'bytes':>8}   out us of each round"
    )
    for name, rows in seen.items():
        into, out_of = (
            "".join(f"{statistics.median(row[at][n] for row in rows):8,.1f}" for n in range(3))
            for at in range(2)
        )
        size = max(row[2] for row in rows)  # later rounds find room that the first ones left
        spent = ", ".join(f"{row[1].us:.0f}" for row in rows)
        print(f"{name:26}{into}     {out_of}{size:8,.0f}   {spent}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, action="append", default=[])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--groups", type=int, default=200)
    parser.add_argument("--passing", type=int, default=60, help="seconds of passing through")
    parser.add_argument("--only", choices=["appends", "beside"], help="a part")
    parser.add_argument("--sync", type=int, default=0, help="microseconds that a sync takes longer")
    options = parser.parse_args()
    named = {"plain table": PLAIN, "by hand": BY_HAND, "ours": OURS, "lease table": LEASE}
    queues = {name: statements(text) for name, text in named.items()}
    queues |= {one.stem: statements(one.read_text()) for one in options.peer}
    settings = {"shared_preload_libraries": "pg_stat_statements", "max_connections": "150"}
    if options.sync:  # a commit waits so long before it syncs, for all that commit meanwhile
        settings |= {"commit_delay": str(options.sync), "commit_siblings": "0"}
    with postgres(durable=True, settings=settings) as server, server.database("queues") as url:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER DATABASE queues SET search_path = public")
            connection.execute("CREATE EXTENSION pg_stat_statements SCHEMA public")
        for queue in queues.values():
            script = queue.get("SETUP", "SELECT 1")
            run_client(url, "psql", "-qXv", "ON_ERROR_STOP=1", script=script)
        if options.only != "beside":
            for kind, clients in (("ONE", 32), ("ONE", 64), ("MANY", 8)):
                appends(url, queues, kind, clients, options.rounds)
        if options.only == "appends":
            return
        if not options.only:
            pass_through(url, queues, options.groups, "in quiet", options.passing)
        with psycopg.connect(url) as idle:
            idle.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            idle.execute("SELECT pg_current_snapshot()")
            began = time.monotonic()
            pass_through(url, queues, options.groups, "beside a transaction", options.passing)
            print(f"open for {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
