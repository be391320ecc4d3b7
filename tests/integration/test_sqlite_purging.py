"""Which rows a page of a purge removes from an SQLite outbox, and how their space is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from service.errors import OutboxBusyError
from service.outbox.retention import PurgedPage
from service.outbox.sqlite import notes
from service.outbox.sqlite.purge import SqlitePurger
from service.outbox.sqlite.quota import BytesCount
from service.outbox.sqlite.removal import Removal
from tests.support.sqlite_room import START_MS, InlineJobs, Room
from tests.support.storage import event
from tests.support.virtual_time import in_virtual_time

NOTED_MS = 7_000_000


class Pages:
    """A file with free pages; `vacuumed` are the scripts that gave some back."""

    def __init__(self) -> None:
        self.free = 0
        self.vacuumed: list[str] = []

    def execute(self, statement: str) -> Pages:
        assert statement == "PRAGMA freelist_count"
        return self

    def fetchall(self) -> list[tuple[int]]:
        return [(self.free,)]

    def executescript(self, script: str) -> None:
        self.vacuumed.append(script)
        self.free -= 1000


class Desk:
    """A purge of a room at its clock; `is_wanted` as the lock says."""

    def __init__(self) -> None:
        self.room, self.pages, self.is_wanted = Room(), Pages(), False
        self.purger = SqlitePurger(
            self,  # type: ignore[arg-type]
            InlineJobs(self.room),  # type: ignore[arg-type]
            self.room.counts,
            Removal(BytesCount()),
            self.room.clock,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
        )

    async def between_commits(self, work: Callable[[Any], bool]) -> bool:
        return work(self.pages)

    def rows(self, count: int) -> None:
        """So many rows, delivered when they were accepted."""
        for _ in range(count):
            self.room.append(event())
        batch = self.room.claim(count, max_bytes=1 << 30)
        assert batch
        self.room.settle(batch.claim, delivered=[entry.seq for entry in batch.entries])
        self.change("UPDATE outbox SET accepted_at_ms = ?", START_MS)

    def change(self, statement: str, *values: Any) -> None:
        self.room.connection.execute(statement, values)

    def left(self) -> Sequence[int]:
        return sorted(self.room.places())


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(notes, "wall_now_ms", lambda: NOTED_MS)
    return Desk()


async def test_an_empty_outbox_has_no_page(desk: Desk) -> None:
    assert await desk.purger.purge_page(0, 1) == PurgedPage(None, 0)
    desk.rows(1)
    assert await desk.purger.purge_page(1, -1) == PurgedPage(None, 0)


async def test_rows_that_were_delivered_longer_ago_go_and_are_counted_no_more(desk: Desk) -> None:
    desk.rows(5)
    for seq, settled_at_ms in ((2, 501), (3, 500)):
        where = "SET settled_at_ms = ? WHERE seq = ?"
        desk.change(f"UPDATE outbox_done {where}", START_MS + settled_at_ms, seq)
    desk.change("UPDATE outbox_done SET dead = 1 WHERE seq = 4")
    desk.room.at(2000)
    sizes = "SELECT sum(length(payload)) FROM outbox WHERE seq IN (2, 4)"
    [(kept,)] = desk.room.connection.execute(sizes).fetchall()
    assert await desk.purger.purge_page(0, 1.5) == PurgedPage(5, 3)
    assert desk.left() == [2, 4]
    assert desk.room.counts.total_bytes == kept


async def test_a_page_begins_after_the_last_one(desk: Desk) -> None:
    desk.rows(4)
    assert await desk.purger.purge_page(2, -1) == PurgedPage(4, 2)
    assert desk.left() == [1, 2]


async def test_a_page_has_500_rows(desk: Desk) -> None:
    desk.rows(502)
    assert await desk.purger.purge_page(1, -1) == PurgedPage(501, 500)
    assert desk.left() == [1, 502]


async def test_a_row_under_a_page_is_left_where_it_is_settled_in_between(desk: Desk) -> None:
    desk.rows(3)
    desk.change("UPDATE outbox_done SET settled_at_ms = ? WHERE seq > 1", START_MS + 9000)
    assert await desk.purger.purge_page(0, 0) == PurgedPage(3, 1)
    assert desk.left() == [2, 3]


@pytest.mark.parametrize(
    ("accepted", "next_after"), [([501, 502], None), ([500, 900], 2), ([900, 500], 2)]
)
async def test_a_page_is_the_last_when_all_its_rows_were_accepted_later(
    desk: Desk, accepted: list[int], next_after: int | None
) -> None:
    desk.rows(2)
    for seq, ms in enumerate(accepted, 1):
        desk.change("UPDATE outbox SET accepted_at_ms = ? WHERE seq = ?", START_MS + ms, seq)
    desk.room.at(1500)
    assert (await desk.purger.purge_page(0, 1)).next_after == next_after


async def test_a_purge_makes_way_for_a_service(desk: Desk) -> None:
    desk.rows(1)
    desk.is_wanted = True
    with pytest.raises(OutboxBusyError, match="A service is starting"):
        await desk.purger.purge_page(0, -1)
    assert desk.left() == [1]


@pytest.mark.parametrize(("actor", "noted"), [("ada", 1), (None, 0)])
async def test_a_purge_of_an_operator_is_noted(desk: Desk, actor: str | None, noted: int) -> None:
    await desk.purger.purge_ended(12, actor)
    found = desk.room.connection.execute("SELECT at_ms, actor, action, detail FROM outbox_audit")
    assert found.fetchall() == [(NOTED_MS, "ada", "purge", "12 delivered rows")] * noted


@in_virtual_time
async def given_back(desk: Desk, seconds: float) -> None:
    await desk.purger.purge_ended(1, None)
    assert asyncio.get_running_loop().time() == pytest.approx(seconds)


@pytest.mark.parametrize(("free", "times"), [(999, 0), (1000, 1), (2999, 2)])
def test_free_pages_are_given_back_a_thousand_at_a_time_with_pauses(
    desk: Desk, free: int, times: int
) -> None:
    desk.pages.free = free
    given_back(desk, 0.05 * times)
    assert desk.pages.vacuumed == ["PRAGMA incremental_vacuum(1000)"] * times


def test_free_pages_are_left_to_a_service_that_waits(desk: Desk) -> None:
    desk.pages.free, desk.is_wanted = 5000, True
    given_back(desk, 0)
    assert desk.pages.vacuumed == []
