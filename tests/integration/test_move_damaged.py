"""A move of an outbox of which events are gone says so, and does not end as if all was well."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import msgspec
import psycopg
import pytest

from service.outbox.move.move import Moved
from service.outbox.move.transfer import Missing, MissingRow
from service.outbox.schema import migrate
from tests.support.moving import move
from tests.support.outbox_command import outbox_command
from tests.support.storage import PostgresStorage, SqliteStorage, append_all, ask, claim, deliver


async def without_events(path: Path, *seqs: int) -> str:
    """An outbox of 30 events, of which the first is delivered; these are gone."""
    async with SqliteStorage(path).open() as outbox:
        await append_all(outbox, 30)
        await deliver(outbox, await claim(outbox, ask(1)))
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq in seqs])
    return f"sqlite:///{path}"


@pytest.fixture
def new(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'new.db'}"


async def test_the_rows_whose_events_are_gone_are_named_and_the_others_moved(
    path: Path, new: str
) -> None:
    source = await without_events(path, 1, 7)
    missing = Missing(2, (MissingRow(1, "delivered"), MissingRow(7, "pending")))
    moved = await move(source, new)
    assert (moved.finished, moved.written, moved.missing) == (True, 28, missing)
    again = await move(source, new)
    assert again == msgspec.structs.replace(moved, written=0)


async def test_the_command_says_how_many_were_not_moved_and_which_and_exits_with_1(
    path: Path, new: str
) -> None:
    source = await without_events(path, *range(2, 24))
    code, out, err = await outbox_command(source, "move", "--to", new)
    said = " ".join(out.split())
    assert (code, err) == (1, "")
    assert "Wrote 8 rows." in said
    assert "22 rows were not moved: the source is damaged and lacks a part of each." in said
    assert "numbers: 2 (pending), 3 (pending), " in said
    assert "20 (pending), 21 (pending), and 2 more. Only a backup" in said
    assert "the move is finished" in said
    code, out, _ = await outbox_command(source, "move", "--to", new, "--json")
    assert code == 1
    found = msgspec.json.decode(out, type=Moved)
    assert (found.finished, found.missing.rows, len(found.missing.first)) == (True, 22, 22)


async def test_one_row_is_one_and_a_whole_outbox_has_none(path: Path, tmp_path: Path) -> None:
    whole = await without_events(path)
    damaged = await without_events(tmp_path / "damaged.db", 9)
    for source, code, words in ((whole, 0, None), (damaged, 1, "1 row was not moved: ")):
        found, out, _ = await outbox_command(source, "move", "--to", f"{source}-new")
        assert found == code
        assert (words or "") in out
        assert ("not moved" in out) is bool(words)


async def test_a_database_of_which_an_event_is_gone_is_told_too(target: str, new: str) -> None:
    migrate(target)
    async with PostgresStorage(target).open() as outbox:
        await append_all(outbox, 3)
    with psycopg.connect(target) as connection:
        connection.execute("DELETE FROM outbox WHERE seq = 2")
    moved = await move(target, new)
    assert (moved.finished, moved.written) == (True, 2)
    assert moved.missing == Missing(1, (MissingRow(2, "pending"),))
