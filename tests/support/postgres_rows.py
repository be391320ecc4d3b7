"""Many rows for a PostgreSQL outbox, made by the server: those that wait, and those that went."""

from __future__ import annotations

import psycopg

_PAGE = 250_000

_APPEND = """
WITH put AS (
    INSERT INTO outbox (event_id, name, owner, user_id, accepted_at_ms, payload)
    SELECT 'made-' || gen_random_uuid(), 'n', 'u-' || n %% 50, 'u', 0, '\\x00'
    FROM generate_series(1, %(count)s) AS n RETURNING seq, owner
), ready AS (
    INSERT INTO outbox_ready (seq, payload_bytes, due_at)
    SELECT seq, 1, CASE WHEN seq %% 10 = 0 THEN clock_timestamp() END FROM put
)
INSERT INTO outbox_changes (owners, pending, stored, stored_bytes)
SELECT array_agg(owner), array_agg(rows), array_agg(rows), array_agg(rows)
FROM (SELECT owner, count(*) AS rows FROM put GROUP BY owner) AS o
"""
_CLAIM = """
INSERT INTO outbox_claims
    (claim, lease_until, claimed_at_ms, seqs, attempts, sends, isolated, first_sent_at_ms)
SELECT 'made-' || gen_random_uuid(), clock_timestamp() + interval '1 s', 0, '{0}', '{1}', '{1}',
       '{f}', '{1}'
FROM generate_series(1, %(count)s / 20)
"""
_SETTLE = """
WITH gone AS (DELETE FROM outbox_ready RETURNING seq
), done AS (
    INSERT INTO outbox_done (seq, settled_at_ms, attempts, sends, isolated, dead)
    SELECT seq, floor(extract(epoch FROM clock_timestamp()) * 1000), 1, 1, false, false FROM gone
), over AS (DELETE FROM outbox_claims)
INSERT INTO outbox_changes (owners, pending, delivered)
SELECT array_agg(owner), array_agg(-rows), sum(rows)
FROM (SELECT owner, count(*) AS rows FROM gone JOIN outbox USING (seq) GROUP BY owner) AS o
"""


def append_rows(url: str, count: int) -> None:
    """Rows that wait; one in ten came back and is due."""
    with psycopg.connect(url, autocommit=True) as connection:
        for page in _pages(count):
            connection.execute(_APPEND, {"count": page})


def pass_rows_through(url: str, count: int) -> None:
    """Rows that are appended, claimed and delivered; they leave as many dead ones behind."""
    with psycopg.connect(url, autocommit=True) as connection:
        for page in _pages(count):
            for statement in (_APPEND, _CLAIM, _SETTLE):
                connection.execute(statement, {"count": page})


def analyze(url: str) -> None:
    """What autovacuum does in time."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE")


def _pages(count: int) -> list[int]:
    return [_PAGE] * (count // _PAGE) + [count % _PAGE] * (count % _PAGE > 0)
