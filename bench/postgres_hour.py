"""A service on PostgreSQL under a steady load, half an hour of it beside an open transaction.

`python -m bench.postgres_hour [--minutes 60] [--open 30]`. 75 posts a second and 75 transactions
with one `outbox.append` each. Delivered events are purged after 5 minutes. After a third of the
other minutes a transaction is open that has an id and a snapshot. Prints a line a minute: the
server's microseconds for an event by statements, and of its processes in all; the time from a
post's answer or an append's commit to the arrival (95 of 100); the sizes. Then the numbers of those
that are missing, and that came twice.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass, field

import psycopg

from bench.processes import postgres
from service.outbox.schema import migrate
from tests.support.arrivals import Arrivals, noted_arrivals
from tests.support.fleet import Client, client, environment, running
from tests.support.postgres_server import PostgresServer

COLUMNS = "at transaction in out rest pages processes p95_ms tables_MB indexes_MB dead_rows pending"
PER_SECOND = 150
_CONNECTIONS = 8
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
        given = {"OUTBOX_CONFIRM": "off", "OUTBOX_RETENTION": "300"}
        async with running("serve", environment=environment(url, arrivals.url, **given)) as service:
            await poster.sign_in(service.url)
            load = Load(service.url, poster, connections)
            print(COLUMNS)
            for minute in range(minutes):
                if minute == (minutes - kept) // 3:
                    idle.execute("SELECT pg_current_xact_id(), pg_current_snapshot()")
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
    print(f"{load.sent:,} events, {len(load.answered)} missing, {arrivals.repeated} twice")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--open", type=int, default=30)
    options = parser.parse_args()
    settings = {"shared_preload_libraries": "pg_stat_statements"}
    with postgres(durable=True, settings=settings) as server, server.database("hour") as url:
        migrate(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
        asyncio.run(trial(server, url, options.minutes, options.open))


if __name__ == "__main__":
    main()
