"""A move keeps until when an event is delayed, from each store to each."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from service.bootstrap.operations import _transfer
from service.config.outbox_url import sqlite_url
from service.outbox.event import Event, Meta
from service.outbox.model import Filter, Retry, Settlement
from service.outbox.schema import migrate
from tests.support.moving import move
from tests.support.postgres_server import PostgresServer
from tests.support.storage import (
    Outbox,
    SqliteStorage,
    append_all,
    claim,
    claims_nothing,
    event,
    eventually,
    ids,
    storage_at,
)

HOUR_MS = 3_600_000


def empty_place(store: str, name: str, folder: Path, server: PostgresServer) -> Iterator[str]:
    if store == "sqlite":
        yield sqlite_url(folder / f"{name}.db")
    else:
        with server.database(name) as url:
            yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def source_url(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer
) -> Iterator[str]:
    """The address of an empty outbox in each store."""
    for url in empty_place(request.param, "source", tmp_path, postgres):
        migrate(url)
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def target_url(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer
) -> Iterator[str]:
    """The address of a place for an outbox in each store."""
    yield from empty_place(request.param, "moved", tmp_path, postgres)


def delayed(until_ms: int) -> Event:
    return msgspec.structs.replace(event(), meta=Meta(due_at_ms=until_ms))


def now_ms() -> int:
    return int(time.time() * 1000)


def times(url: str) -> dict[str, int]:
    """Until when the outbox holds each event."""
    with _transfer(url) as there:
        return {one.id: one.meta.due_at_ms for one in there.events.page(0, 99)}


async def due_in(outbox: Outbox, event_id: str) -> float | None:
    [row] = await outbox.inspector.rows(Filter(ids=(event_id,)))
    return row.due_in_seconds


async def test_a_delayed_event_stays_delayed_and_the_others_are_due(
    source_url: str, target_url: str
) -> None:
    async with storage_at(source_url).open() as outbox:
        [retried] = await append_all(outbox, 1)
        batch = await claim(outbox)
        again = Retry(batch.entries[0].seq, 60, attempts=0, isolated=False)
        await outbox.queue.settle(Settlement(batch.claim, retry=[again]))
        later, soon = delayed(now_ms() + HOUR_MS), delayed(now_ms() + 100)
        await outbox.intake.append(later)
        await outbox.intake.append(soon)
        [plain] = await append_all(outbox, 1)
        await eventually(lambda: is_past(soon.meta.due_at_ms))
    await move(source_url, target_url)
    assert times(target_url)[later.id] == later.meta.due_at_ms
    for _ in range(2):
        async with storage_at(target_url).open() as outbox:
            seconds = await due_in(outbox, later.id)
            assert seconds is not None
            assert seconds > 0
    async with storage_at(target_url).open() as outbox:
        found: list[str] = []
        while len(found) < 3:
            found += ids(await claim(outbox))
        assert sorted(found) == sorted([retried.id, soon.id, plain.id])
        assert await claims_nothing(outbox)


async def is_past(ms: int) -> bool:
    return now_ms() > ms


async def test_a_finished_move_is_finished_also_when_a_time_has_come_since(
    path: Path, target: str
) -> None:
    async with SqliteStorage(path).open() as outbox:
        await outbox.intake.append(delayed(now_ms() + HOUR_MS))
    first = await move(sqlite_url(path), target)
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE outbox_ready SET due_at_ms = 1")
    again = await move(sqlite_url(path), target)
    assert (again.written, again.total) == (0, first.total)
