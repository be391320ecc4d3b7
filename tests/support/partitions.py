"""Partitions of a PostgreSQL outbox in tests."""

from __future__ import annotations

import psycopg


def close_partition(url: str) -> None:
    """Close the open partition while nobody writes."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT outbox_make_partition()")
        [(closed,)] = connection.execute("SELECT outbox_close_partition()").fetchall()
        assert closed
