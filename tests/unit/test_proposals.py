"""Changes of many rows: of those that were shown, at the rate that was asked for."""

from __future__ import annotations

import asyncio
import dataclasses

from service.console.operations.bulk import Action, Proposal, Proposals, change_rows
from service.console.operations.paced import PacedReplay, PacedReplayer
from service.console.operations.search import Found
from service.outbox.audit import new_act
from service.outbox.event import Event
from service.outbox.model import Filter, Named, Row, State
from tests.support.memory_outbox import MemoryOutbox
from tests.support.virtual_time import in_virtual_time, now

NOW = 1_000.0


class Finds:
    """A search that finds these rows."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    async def find(self, wanted: Filter) -> Found:
        return Found(self._rows[: wanted.limit])


async def proposed(settled_at: float, *, seen_ms: int | None) -> Proposal:
    """Of a dead row that was settled then, in the time of the store's clock."""
    outbox = MemoryOutbox(lambda: NOW)
    row = outbox.rows.append(Event("e-1", "n", "u-1", "u-1", 0, b"{}"))
    outbox.rows.put(row, State.DEAD)
    row.settled_at = settled_at
    proposals = Proposals(Finds([row.row(NOW)]), outbox.repairs)  # type: ignore[arg-type]
    return await proposals.propose(
        Action.REPLAY, Filter(limit=10), now_ms=int(NOW * 1000), seen_ms=seen_ms
    )


async def test_what_was_settled_after_it_was_shown_is_left_alone() -> None:
    seen_ms = int(NOW * 1000) - 10
    assert (await proposed(NOW, seen_ms=seen_ms)).rows == []
    assert len((await proposed(NOW - 0.01, seen_ms=seen_ms)).rows) == 1


async def test_a_first_dry_run_has_what_was_settled_while_it_looked() -> None:
    """And so what a store settled whose clock is ahead of this process's."""
    assert len((await proposed(NOW + 5, seen_ms=None)).rows) == 1


async def test_a_first_dry_run_says_that_more_match_than_were_found() -> None:
    class Cut(Finds):
        async def find(self, wanted: Filter) -> Found:
            return dataclasses.replace(await super().find(wanted), is_cut=True)

    for search, has_more in ((Finds(dead_rows(1)), False), (Cut(dead_rows(1)), True)):
        proposals = Proposals(search, MemoryOutbox(lambda: NOW).repairs)  # type: ignore[arg-type]
        proposal = await proposals.propose(Action.REPLAY, Filter(id_prefix="e"), now_ms=0)
        assert proposal.has_more is has_more


class Replays:
    """Repairs that remember when how many rows were replayed."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    async def replay(self, wanted: Named, **_: object) -> list[str]:
        self.seen.append((now(), len(wanted.ids)))
        return list(wanted.ids)


def dead_rows(count: int) -> list[Row]:
    outbox = MemoryOutbox(lambda: NOW)
    for number in range(count):
        event = Event(f"e-{number}", "n", "u-1", "u-1", 0, b"{}")
        outbox.rows.put(outbox.rows.append(event), State.DEAD)
    return [row.row(NOW) for row in outbox.rows.by_seq.values()]


@in_virtual_time
async def test_a_change_at_a_rate_takes_its_time() -> None:
    replays, began = Replays(), now()
    rows = dead_rows(5)
    await change_rows(replays.replay, rows, actor="ada", act=new_act("all"), per_minute=120)
    assert [(round(at - began), count) for at, count in replays.seen] == [(0, 2), (1, 2), (2, 1)]


class OneReplay:
    """The replay that is under way, kept in memory."""

    def __init__(self, one: PacedReplay) -> None:
        self.one: PacedReplay | None = one

    async def current(self) -> PacedReplay | None:
        return self.one

    async def keep(self, one: PacedReplay | None) -> None:
        self.one = one


class Always:
    async def mine(self) -> bool:
        return True


@in_virtual_time
async def test_a_replay_at_a_rate_takes_its_time_and_no_more_than_was_shown() -> None:
    found, act = Finds(dead_rows(5)), new_act("all")
    kept = OneReplay(PacedReplay(act, "ada", Filter(), int(NOW * 1000), 120, total=5))
    replays, began = Replays(), now()
    replayer = PacedReplayer(kept, found, replays, Always())  # type: ignore[arg-type]
    running = asyncio.create_task(replayer.run())
    await asyncio.sleep(60)
    running.cancel()
    assert [(round(at - began), count) for at, count in replays.seen] == [(0, 2), (1, 2), (2, 1)]
    assert kept.one is None
