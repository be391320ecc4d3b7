"""Partitions of a PostgreSQL outbox in tests."""

from __future__ import annotations

import time

import psycopg

from tests.support.storage import PATIENCE_SECONDS


def close_partition(url: str) -> None:
    """Close the open partition while nobody writes; others may read meanwhile."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            connection.execute("SELECT outbox_make_partition()")
            [(closed,)] = connection.execute("SELECT outbox_close_partition()").fetchall()
            if closed:
                return
            assert time.monotonic() < deadline
