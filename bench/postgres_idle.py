"""The statements a second that idle services make on PostgreSQL, counted by hand.

`python -m bench.postgres_idle` shows them for one and two services. The server counts transactions,
and each statement is one. The machine does not change the figures.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path

import psycopg

from bench.processes import postgres, service, sink
from inngest_outbox.outbox.schema import migrate
from tests.support.postgres_server import PostgresServer

SETTLE_SECONDS, WATCH_SECONDS = 8.0, 30.0
_TRANSACTIONS = """
SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()
"""


def idle_statements(server: PostgresServer, processes: int, confirm: str) -> float:
    """The statements a second of each of `processes` services without events."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(server.database(f"idle_{processes}_{confirm}"))
        migrate(url)
        inngest = stack.enter_context(sink())
        for _ in range(processes):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            changes = {"OUTBOX_URL": url, "OUTBOX_CONFIRM": confirm}
            stack.enter_context(service(inngest.url, folder, **changes))
        time.sleep(SETTLE_SECONDS)
        before = transactions(url)
        time.sleep(WATCH_SECONDS)
        return (transactions(url) - before) / WATCH_SECONDS / processes


def transactions(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        [(count,)] = connection.execute(_TRANSACTIONS).fetchall()
        return int(count)


def main() -> None:
    with postgres() as server:
        for processes in (1, 2):
            for confirm in ("off", "on"):
                rate = idle_statements(server, processes, confirm)
                print(f"{processes} process(es), confirmation {confirm}: {rate:.1f} a second each")


if __name__ == "__main__":
    main()
