"""A PostgreSQL outbox and its rows: none, or many that the server makes, waiting or gone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg

from inngest_outbox.outbox.postgres.database.connection import statements
from inngest_outbox.outbox.schema import migrate
from tests.support.postgres_server import PostgresServer
from tests.support.storage import eventually

EMPTY_OUTBOX = """
DELETE FROM outbox.events; DELETE FROM outbox.ready; DELETE FROM outbox.claims;
DELETE FROM outbox.done; DELETE FROM outbox.sent; DELETE FROM outbox.notes;
DELETE FROM outbox.inbox; DELETE FROM outbox.settings; DELETE FROM outbox.audit;
DELETE FROM outbox.samples; DELETE FROM outbox.changes; DELETE FROM outbox.counts;
DELETE FROM outbox.delivery; INSERT INTO outbox.delivery DEFAULT VALUES;
UPDATE outbox.turns SET until = '-infinity';
UPDATE outbox.meta SET settings_revision = 0;
UPDATE outbox.appending SET encrypted_names = '{}';
UPDATE outbox.totals SET pending = 0, delivered = 0, dead = 0, sent = 0;
"""
_PAGE = 250_000

_APPEND = """
WITH put AS (
    INSERT INTO outbox.events (event_id, name, owner, user_id, accepted_at_ms, payload)
    SELECT 'made-' || gen_random_uuid(), 'n', 'u-' || n %% 50, 'u', 0, '\\x00'
    FROM generate_series(1, %(count)s) AS n RETURNING seq, owner
), ready AS (
    INSERT INTO outbox.ready (seq, payload_bytes, due_at, isolated, fair_share_seq)
    SELECT seq, 1, CASE WHEN seq %% 10 = 0 THEN clock_timestamp() END, seq %% 50 = 0,
           CASE WHEN seq %% 7 = 0 THEN seq END
    FROM put
)
INSERT INTO outbox.changes (owners, pending, stored, stored_bytes)
SELECT array_agg(owner), array_agg(rows), array_agg(rows), array_agg(rows)
FROM (SELECT owner, count(*) AS rows FROM put GROUP BY owner) AS o
"""
_CLAIM = """
INSERT INTO outbox.claims
SELECT 'made-' || gen_random_uuid(), clock_timestamp(), 0, '{0}', '{1}', '{1}', '{f}', '{1}', '{0}'
FROM generate_series(1, %(count)s / 5)
"""
_SETTLE = """
WITH gone AS (DELETE FROM outbox.ready RETURNING seq
), done AS (
    INSERT INTO outbox.done (seq, settled_at_ms, attempts, sends, isolated, dead)
    SELECT seq, floor(extract(epoch FROM clock_timestamp()) * 1000), 1, 1, false, false FROM gone
), over AS (DELETE FROM outbox.claims)
INSERT INTO outbox.changes (owners, pending, delivered)
SELECT array_agg(owner), array_agg(-rows), sum(rows)
FROM (SELECT owner, count(*) AS rows FROM gone JOIN outbox.events USING (seq) GROUP BY owner) AS o
"""
_SEND = """
INSERT INTO outbox.sent (seq, sent_at_ms, first_sent_at_ms, attempts, sends, isolated)
SELECT last_value - n, floor(extract(epoch FROM clock_timestamp()) * 1000), 0, 1, 1, false
FROM outbox.events_seq_seq, generate_series(0, %(count)s - 1) AS n
"""
_CONFIRM = "DELETE FROM outbox.sent"
_PASSED = """
SELECT (ready_from > safe_seq OR EXISTS (SELECT FROM outbox.ready WHERE seq = ready_from))
   AND lease_from > %s FROM outbox.mark
"""


@contextlib.contextmanager
def new_outbox(server: PostgresServer, name: str) -> Iterator[str]:
    """The address of a new empty outbox; removed at the end of the block."""
    with server.database(name) as url:
        migrate(url)
        yield url


def empty_outbox(url: str) -> None:
    """Remove all rows; emptying an outbox is much faster than making one."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(EMPTY_OUTBOX)


def append_rows(url: str, count: int) -> None:
    """Rows that wait: one in ten came back and is due, one in seven has a fair share."""
    with psycopg.connect(url, autocommit=True) as connection:
        for page in _pages(count):
            connection.execute(_APPEND, {"count": page})


def pass_rows_through(url: str, count: int) -> None:
    """Rows that are appended, claimed, sent and delivered; dead ones stay in each hot table."""
    with psycopg.connect(url, autocommit=True) as connection:
        for page in _pages(count):
            for statement in (_APPEND, _CLAIM, _SETTLE, _SEND, _CONFIRM):
                connection.execute(statement, {"count": page})


def analyze(url: str) -> None:
    """What autovacuum does in time."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE")


async def catch_up(url: str) -> None:
    """Look until the marks have passed all that is gone, as a service does by and by."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute("SELECT clock_timestamp()")
        now = await cursor.fetchone()

        async def passed() -> bool:
            await connection.execute(statements("outbox")["LOOK"], {"interval_seconds": 0.0})
            cursor = await connection.execute(_PASSED, now)
            return bool((await cursor.fetchall())[0][0])

        await eventually(passed, within_seconds=600)
        for _ in range(20):
            await connection.execute(statements("outbox")["LOOK"], {"interval_seconds": 0.0})
        await connection.execute(statements("outbox")["FOLD"])


def _pages(count: int) -> list[int]:
    return [_PAGE] * (count // _PAGE) + [count % _PAGE] * (count % _PAGE > 0)
