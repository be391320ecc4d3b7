"""Statements of a PostgreSQL outbox, one at a time, on one session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.support.postgres_room import CLOCK, Room, RoomPool
from tests.support.postgres_rows import new_outbox
from tests.support.postgres_server import PostgresServer
from tests.support.repair_room import RepairRoom
from tests.support.sql_appends import SqlAppends


@pytest.fixture(scope="session")
def room_url(postgres: PostgresServer) -> Iterator[str]:
    """An empty outbox, in which nothing is ever committed."""
    with new_outbox(postgres, "room") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(CLOCK)
        yield url


@pytest.fixture(scope="session")
def room_connection(room_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(room_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def room(room_connection: psycopg.Connection[Any]) -> Iterator[Room]:
    """An empty outbox whose clock a test sets."""
    with room_connection.transaction(force_rollback=True):
        yield Room.empty(room_connection)


@pytest.fixture
def pool(room: Room) -> RoomPool:
    """Runs a store's statements there."""
    return RoomPool(room)


@pytest.fixture
def here(room: Room) -> RepairRoom:
    """Operators' commands there."""
    return RepairRoom(room)


@pytest.fixture
def sql(room: Room) -> SqlAppends:
    """Appends in SQL there."""
    return SqlAppends(room)
