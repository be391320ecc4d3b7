"""Following an outbox: each look tells what was accepted and what changed since the one before."""

from __future__ import annotations

import pytest

from inngest_outbox.console.operations import tail as tail_module
from inngest_outbox.console.operations.tail import Tail
from inngest_outbox.outbox.model import Filter, Named, Retry, Row, Settlement, State
from tests.support.rows import bury
from tests.support.storage import Outbox, append_all, claim, event


def tail(**wanted: object) -> Tail:
    return Tail(Filter(**wanted))


async def seen(followed: Tail, outbox: Outbox) -> list[tuple[str, str]]:
    return [(one.what, one.row.id) for one in await followed.look(outbox)]


async def test_it_begins_with_the_newest_rows_as_they_are(outbox: Outbox) -> None:
    [dead] = await bury(outbox)
    first, second = await append_all(outbox, 2)
    begun = await tail().begin(outbox, 2)
    assert [(one.what, one.row.id) for one in begun] == [
        ("pending", first.id),
        ("pending", second.id),
    ]
    begun = await tail(state=State.DEAD).begin(outbox, 2)
    assert [(one.what, one.row.id) for one in begun] == [("dead", dead)]
    assert await tail().begin(outbox, 0) == []


async def test_new_events_and_what_becomes_of_them_are_told_once(outbox: Outbox) -> None:
    followed = tail()
    assert await followed.begin(outbox, 10) == []
    first, second = await append_all(outbox, 2)
    assert await seen(followed, outbox) == [("accepted", first.id), ("accepted", second.id)]
    assert await seen(followed, outbox) == []
    batch = await claim(outbox)
    assert await seen(followed, outbox) == [("delivering", first.id), ("delivering", second.id)]
    retry = Retry(batch.entries[1].seq, 60.0, 1, isolated=True, note="HTTP 400: no")
    delivered = [batch.entries[0].seq]
    await outbox.queue.settle(Settlement(batch.claim, delivered=delivered, retry=[retry]))
    changes = await followed.look(outbox)
    assert [(one.what, one.row.id) for one in changes] == [
        ("delivered", first.id),
        ("pending", second.id),
    ]
    assert changes[1].row.history[-1].note == "HTTP 400: no"
    await outbox.repairs.discard(Named((second.id,)), actor="ada")
    assert await seen(followed, outbox) == [("gone", second.id)]
    assert await seen(followed, outbox) == []


async def test_only_what_matches_is_told(outbox: Outbox) -> None:
    of_user, dead_only = tail(user_id="u-2"), tail(state=State.DEAD)
    for one in (of_user, dead_only):
        await one.begin(outbox, 10)
    [dead] = await bury(outbox)
    other = event("u-2")
    await outbox.intake.append(other)
    assert await seen(of_user, outbox) == [("accepted", other.id)]
    assert await seen(dead_only, outbox) == [("dead", dead)]
    await outbox.repairs.discard(Named((other.id,)), actor="ada")
    assert await seen(of_user, outbox) == [("gone", other.id)]
    assert await seen(dead_only, outbox) == []


async def test_more_events_than_a_page_are_told_in_their_order(outbox: Outbox) -> None:
    followed = tail()
    await followed.begin(outbox, 0)
    events = await append_all(outbox, 1100)
    assert await seen(followed, outbox) == [("accepted", one.id) for one in events]
    assert await seen(followed, outbox) == []


class Recording:
    """An outbox that notes what windows of rows were read."""

    def __init__(self, outbox: Outbox) -> None:
        self.inspector, self.positions = self, outbox.positions
        self._read = outbox.inspector.rows
        self.windows: list[int] = []

    async def rows(self, wanted: Filter) -> list[Row]:
        if wanted.after_seq is not None:
            self.windows.append(wanted.after_seq)
        return await self._read(wanted)


async def test_a_look_goes_through_what_came_since_the_look_before(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when none of it matches, and when very much came."""
    monkeypatch.setattr(tail_module, "_LATE_NUMBERS", 3)
    monkeypatch.setattr(tail_module, "_MOST_ROWS", 4)
    followed = Tail(Filter(user_id="rare"))
    recording = Recording(outbox)
    await append_all(outbox, 6)
    await followed.begin(recording, 1)
    seqs = [row.seq for row in await outbox.inspector.rows(Filter())]
    recording.windows.clear()
    await append_all(outbox, 1)
    assert await followed.look(recording) == []
    assert recording.windows == [seqs[0] - 3]
    rare = event("rare")
    await outbox.intake.append(rare)
    assert [one.row.id for one in await followed.look(recording)] == [rare.id]
    await append_all(outbox, 9)
    seqs = [row.seq for row in await outbox.inspector.rows(Filter())]
    assert await followed.look(recording) == []
    assert recording.windows[-1] == seqs[3] - 1
