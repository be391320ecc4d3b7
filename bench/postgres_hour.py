"""The store on PostgreSQL under a long load beside an open transaction.

`python -m bench.postgres_hour [--minutes 60] [--open 30]`: a whole service, 75 posts a second, and
75 transactions with one `outbox.append` each. Delivered events are purged after 5 minutes. After a
third of the other minutes a transaction is open that has an id and a snapshot. Prints a line a
minute: the server's microseconds for an event by statements, and of its processes in all; the time
from a post's answer or an append's commit to the arrival (95 of 100); the sizes. Then the numbers
of those that are missing, and that came twice, and what sends an event again: requests without a
clear answer, and answers after the end of a lease. The receiver runs in this process: where it has
too little of the processor, its answers are late.

`--events 10000000`: so many events, all beside such a transaction. After 0.01, 0.1, 0.3, 0.5 and
all of them, 20,000 go through the service's store alone, in groups of 64 posts, and a line is
printed. The others go by statements that change the same rows.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass, field

import psycopg

from bench.arrivals import Arrivals, noted_arrivals
from bench.postgres import CONCURRENCY, opened
from bench.processes import postgres
from inngest_outbox.outbox.model import ClaimRequest, Settlement
from inngest_outbox.outbox.postgres.store import ServedPostgresOutbox
from inngest_outbox.outbox.schema import migrate
from tests.support.fleet import Client, client, environment, running
from tests.support.postgres_server import PostgresServer
from tests.support.storage import event

COLUMNS = "at transaction in out rest pages processes p95_ms tables_MB indexes_MB dead_rows pending"
GROWTH = "million in out rest pages processes events/s tables_MB indexes_MB dead_rows"
SHARES = (0.01, 0.1, 0.3, 0.5, 1.0)
WINDOW = PAGE = 20_000
PER_SECOND = 150
_CONNECTIONS = 8
_FOLD_SECONDS = 25  # until the counts of what came before are added up
_APPEND = "SELECT outbox.append('documents/saved', '{\"documentName\": \"example\"}', 'u-1')"
_SPENT = """
SELECT coalesce(sum(total_exec_time) FILTER (WHERE kind = 'in'), 0) * 1000 / %(events)s,
       coalesce(sum(total_exec_time) FILTER (WHERE kind = 'out'), 0) * 1000 / %(events)s,
       coalesce(sum(total_exec_time) FILTER (WHERE kind IS NULL), 0) * 1000 / %(events)s,
       coalesce(sum(shared_blks_hit + shared_blks_read), 0)::float8 / %(events)s
FROM pg_stat_statements, LATERAL (SELECT CASE
    WHEN query ~ 'outbox.append|/. (APPEND|INBOX_|FIND_STORED)' THEN 'in'
    WHEN query ~ '/. (CLAIM|SETTLE) ' THEN 'out' END AS kind) AS k
WHERE toplevel AND query !~ 'pg_stat_|pg_indexes_size'
"""
_UNANSWERED = 'outbox_sends_total{outcome="trouble"}'
_KEEP_OPEN = "SELECT pg_current_xact_id(), pg_current_snapshot()"
# As groups of 64 leave them: the rows of events, and for each group a claim and two changes.
_FILL = (
    f"""
WITH put AS (
    INSERT INTO outbox.events (accepted_at_ms, event_id, name, owner, payload)
    SELECT extract(epoch FROM now()) * 1000,
           to_char(clock_timestamp(), 'YYYYMMDDHH24MISS') || substr(gen_random_uuid()::text, 15),
           'documents/aws.index', 'u-' || n % 50, decode(repeat(md5(n::text), 13), 'escape')
    FROM generate_series(1, {PAGE}) AS n RETURNING seq
), grouped AS (
    SELECT array_agg(seq) AS seqs, array_agg(0) AS zeros, array_agg(false) AS no,
           array_agg(NULL::bigint) AS nulls
    FROM (SELECT seq, row_number() OVER () / {CONCURRENCY} AS at FROM put) AS n GROUP BY at
), claimed AS (
    INSERT INTO outbox.claims
    SELECT gen_random_uuid(), now() + interval '1 min', 0, seqs, zeros, zeros, no, nulls, nulls
    FROM grouped
), changed AS (
    INSERT INTO outbox.changes (owners, pending, stored, stored_bytes)
    SELECT owners, ones, ones, sizes FROM grouped, (
        SELECT array_agg('u-' || n) AS owners, array_agg(1) AS ones, array_agg(416) AS sizes
        FROM generate_series(1, 50) AS n) AS many
)
INSERT INTO outbox.ready (seq, payload_bytes) SELECT seq, 416 FROM put
""",
    f"""
WITH gone AS (
    DELETE FROM outbox.ready WHERE seq > (SELECT max(seq) FROM outbox.events) - {PAGE}
    RETURNING seq
), over AS (
    DELETE FROM outbox.claims WHERE lease_until > now() RETURNING seqs
), changed AS (
    INSERT INTO outbox.changes (owners, pending, delivered)
    SELECT owners, fewer, cardinality(seqs) FROM over, (
        SELECT array_agg('u-' || n) AS owners, array_agg(-1) AS fewer
        FROM generate_series(1, 50) AS n) AS many
)
INSERT INTO outbox.done
SELECT seq, extract(epoch FROM now()) * 1000, 0, 1, 1, false, false FROM gone
""",
)
_SIZES = """
SELECT sum(pg_table_size(relid)) / 1e6, sum(pg_indexes_size(relid)) / 1e6, sum(n_dead_tup)
FROM pg_stat_user_tables WHERE schemaname = 'outbox'
"""


@dataclass
class Load:
    """Paced events into one service, and the moments of their answers until they came."""

    service: str
    poster: Client
    connections: asyncio.Queue[psycopg.AsyncConnection]
    answered: dict[str, float] = field(default_factory=dict)
    sent: int = 0

    async def run(self, seconds: float) -> None:
        began, count = time.monotonic(), 0
        async with asyncio.TaskGroup() as events:
            while (now := time.monotonic() - began) < seconds:
                while count < now * PER_SECOND:
                    count += 1
                    events.create_task(self._append() if count % 2 else self._post())
                await asyncio.sleep(1 / PER_SECOND)

    def waits(self, arrivals: Arrivals) -> list[float]:
        """The seconds of those that came since the last call."""
        came = {one: at for one, at in self.answered.items() if one in arrivals.at}
        self.answered = {one: at for one, at in self.answered.items() if one not in came}
        return [arrivals.at[one] - at for one, at in came.items()]

    async def _post(self) -> None:
        if await self.poster.post(self.service) == 200:
            self._note(self.poster.accepted.pop())

    async def _append(self) -> None:
        connection = await self.connections.get()
        [(event_id,)] = await (await connection.execute(_APPEND)).fetchall()
        self._note(event_id)
        self.connections.put_nowait(connection)

    def _note(self, event_id: str) -> None:
        self.answered[event_id] = time.monotonic()
        self.sent += 1


async def trial(server: PostgresServer, url: str, minutes: int, kept: int) -> None:
    connections: asyncio.Queue[psycopg.AsyncConnection] = asyncio.Queue()
    for _ in range(_CONNECTIONS):
        connections.put_nowait(await psycopg.AsyncConnection.connect(url, autocommit=True))
    meter, idle = psycopg.connect(url, autocommit=True), psycopg.connect(url)
    idle.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    async with noted_arrivals() as arrivals, client() as poster:
        given = {"OUTBOX_CONFIRM": "off", "OUTBOX_RETENTION": "300", "OUTBOX_SEND_TIMEOUT": "10s"}
        async with running("serve", environment=environment(url, arrivals.url, **given)) as service:
            await poster.sign_in(service.url)
            load = Load(service.url, poster, connections)
            print(COLUMNS)
            for minute in range(minutes):
                if minute == (minutes - kept) // 3:
                    idle.execute(_KEEP_OPEN)
                if minute == (minutes - kept) // 3 + kept:
                    idle.rollback()
                meter.execute("SELECT pg_stat_statements_reset()")
                sent, processor = load.sent, server.processor_seconds()
                await load.run(60)
                events = load.sent - sent
                _, ready = await poster.readiness(service.url)
                figures = [
                    *meter.execute(_SPENT, {"events": events}).fetchall()[0],
                    (server.processor_seconds() - processor) * 1e6 / events,
                    statistics.quantiles(load.waits(arrivals), n=20)[18] * 1e3,
                    *meter.execute(_SIZES).fetchall()[0],
                    ready["detail"]["undelivered"],
                ]
                at, state = time.strftime("%H:%M"), idle.info.transaction_status.name
                print(at, state, *(f"{one:.0f}" for one in figures), flush=True)
            await asyncio.sleep(5)
            load.waits(arrivals)
            seen = await poster.metrics(service.url)
    print(f"{load.sent:,} events, {len(load.answered)} missing, {arrivals.repeated} twice")
    unanswered, late = seen.get(_UNANSWERED, 0), seen["outbox_lease_lost_total"]
    print(f"{unanswered:.0f} requests without a clear answer, {late:.0f} events after their lease")


async def growth(server: PostgresServer, url: str, events: int) -> None:
    meter, idle = psycopg.connect(url, autocommit=True), psycopg.connect(url)
    idle.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    async with opened(url) as outbox:
        idle.execute(_KEEP_OPEN)
        meter.execute("SET enable_seqscan = off")
        print(GROWTH)
        passed = 0
        for share in SHARES:
            while passed < events * share - WINDOW:
                await asyncio.to_thread(fill, meter)
                passed += PAGE
            until = time.monotonic() + _FOLD_SECONDS
            while time.monotonic() < until:
                await pass_group(outbox)
                passed += CONCURRENCY
            meter.execute("SELECT pg_stat_statements_reset()")
            began, processor = time.monotonic(), server.processor_seconds()
            for _ in range(groups := WINDOW // CONCURRENCY):
                await pass_group(outbox)
            passed += groups * CONCURRENCY
            figures = [
                *meter.execute(_SPENT, {"events": groups * CONCURRENCY}).fetchall()[0],
                (server.processor_seconds() - processor) * 1e6 / (groups * CONCURRENCY),
                groups * CONCURRENCY / (time.monotonic() - began),
                *meter.execute(_SIZES).fetchall()[0],
            ]
            print(f"{passed / 1e6:.1f}", *(f"{one:.0f}" for one in figures), flush=True)
    idle.rollback()


def fill(connection: psycopg.Connection) -> None:
    """Pass a page of events through the tables as the service's statements do."""
    for statement in _FILL:
        connection.execute(statement)


async def pass_group(outbox: ServedPostgresOutbox) -> None:
    """Store events as posts that come at once, then claim and settle as many."""
    events = (event(f"u-{n % 50}", size=400) for n in range(CONCURRENCY))
    await asyncio.gather(*(outbox.intake.append(each) for each in events))
    batch = await outbox.queue.claim(ClaimRequest(CONCURRENCY, 2**22, 60.0))
    await outbox.queue.settle(Settlement(batch.claim, [entry.seq for entry in batch.entries]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--open", type=int, default=30)
    parser.add_argument("--events", type=int)
    options = parser.parse_args()
    settings = {"shared_preload_libraries": "pg_stat_statements"}
    with postgres(durable=True, settings=settings) as server, server.database("hour") as url:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
        if options.events:
            asyncio.run(growth(server, url, options.events))
        else:
            asyncio.run(trial(server, url, options.minutes, options.open))


if __name__ == "__main__":
    main()
