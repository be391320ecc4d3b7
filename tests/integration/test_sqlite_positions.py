"""Positions among the rows of an SQLite outbox, and its stored settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.console.operations.search import Search, SearchPolicy
from service.errors import OutboxUnavailableError
from service.outbox.model import Dead, Filter, State
from service.outbox.reach import Reach
from service.outbox.sqlite import notes
from service.outbox.sqlite.rows import PAST_ALL
from tests.support.sqlite_looks import NOW_MS, LooksDesk
from tests.support.sqlite_room import START_MS
from tests.support.storage import event
from tests.support.work_kinds import sqlite_error


@pytest.fixture
def desk(path: Path, monkeypatch: pytest.MonkeyPatch) -> LooksDesk:
    monkeypatch.setattr(notes, "wall_now_ms", lambda: NOW_MS)
    return LooksDesk(path)


def dead(seq: int) -> Dead:
    return Dead(seq, attempts=1, reason="rejected", detail="")


def same(seq: int) -> int:
    return seq


async def test_a_window_ends_at_its_last_row_in_any_state(desk: LooksDesk) -> None:
    desk.rows(*range(1, 15))
    desk.settle(2, dead=dead)
    desk.settle(3, delivered=same)
    desk.settle(4, sent=same)
    desk.room.claim(2)
    reach = desk.positions.reach
    assert await reach(None, 1) == Reach(14, START_MS + 14)
    assert await reach(None, 14) == Reach(1, START_MS + 1)
    assert await reach(None, 15) is None
    assert await reach(None, 2, before_seq=14) == Reach(12, START_MS + 12)
    ends = {State.DEAD: 2, State.DELIVERED: 5, State.SENT: 9, State.DELIVERING: 11}
    for state, newest in {**ends, State.PENDING: 14}.items():
        assert await reach(state, 1) == Reach(newest, START_MS + newest)
        assert await reach(state, 2) == Reach(newest - 1, START_MS + newest - 1)


async def test_a_window_of_an_owner_ends_at_its_last_row(desk: LooksDesk) -> None:
    for owner in ("u-1", "u-2", "u-1", "u-2", "u-1", "u-1"):
        desk.room.append(event(owner))
    desk.room.connection.execute("UPDATE outbox SET accepted_at_ms = seq * 10")
    reach = desk.positions.reach
    assert await reach(None, 1, owner="u-1") == Reach(6, 60)
    assert await reach(None, 4, owner="u-1") == Reach(1, 10)
    assert await reach(None, 5, owner="u-1") is None
    assert await reach(None, 1, 6, "u-1") == Reach(5, 50)
    assert await reach(None, 2, 6, "u-1") == Reach(3, 30)
    assert await reach(None, 1, owner="u-3") is None


async def test_a_damaged_file_is_searched_in_one_window(desk: LooksDesk) -> None:
    ids = desk.rows(*range(1, 6))
    search = Search(desk.inspector, desk.positions, SearchPolicy(first_window=2, window=2))
    for wanted in (Filter(limit=9), Filter(until_ms=NOW_MS, limit=9)):
        desk.reads.fault = sqlite_error("SQLITE_CORRUPT")
        found = await search.find(wanted)
        assert [row.id for row in found.rows] == ids[::-1]
    for look in (desk.positions.reach(None, 1), desk.positions.seq_at(NOW_MS)):
        desk.reads.fault = sqlite_error("SQLITE_BUSY")
        with pytest.raises(OutboxUnavailableError):
            await look
    desk.reads.fault = sqlite_error("SQLITE_CORRUPT")
    assert await desk.positions.seq_at(NOW_MS) == PAST_ALL


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8])
async def test_a_moment_is_found_among_rows_with_gaps(desk: LooksDesk, rows: int) -> None:
    desk.rows(*(seq * 10 for seq in range(1, rows + 4)))
    desk.change("DELETE FROM outbox WHERE seq <= 2 OR seq = 4")
    seqs = [3, *range(5, rows + 4)]
    for seq in seqs:
        assert await desk.positions.seq_at(START_MS + seq * 10 + 1) == seq + 1
        below = await desk.positions.seq_at(START_MS + seq * 10)
        assert [one for one in seqs if one < below] == [one for one in seqs if one < seq]
    assert await desk.positions.seq_at(START_MS) == 3
    assert await desk.positions.seq_at(NOW_MS) == seqs[-1] + 1


async def test_a_moment_in_an_empty_outbox_is_before_all_rows(desk: LooksDesk) -> None:
    assert await desk.positions.seq_at(NOW_MS) == 0


async def test_settings_are_stored_by_their_scope_and_raise_the_revision(desk: LooksDesk) -> None:
    settings = desk.settings
    assert (settings.scope_revision, await settings.load_scope("user", "u-1")) == (0, None)
    await settings.save_scope("user", "u-1", {"a": 1})
    await settings.save_scope("organization", "u-1", {"b": 2})
    await settings.save_scope("user", "u-1", {"a": 3})
    await settings.save_audited(
        "user", {"u-2": {"c": 4}, "u-3": {}}, actor="ada", action="sign-out", detail="two"
    )
    assert settings.scope_revision == 4
    assert await settings.load_scope("user", "u-1") == {"a": 3}
    assert await settings.load_scope("organization", "u-1") == {"b": 2}
    assert await settings.load_scope("user", "u-2") == {"c": 4}
    assert await settings.load_scope("user", "u-3") == {}
    meta = desk.room.connection.execute("SELECT settings_revision FROM outbox_meta").fetchall()
    assert meta == [(4,)]
    audit = "SELECT at_ms, actor, action, detail FROM outbox_audit"
    assert desk.room.connection.execute(audit).fetchall() == [(NOW_MS, "ada", "sign-out", "two")]
