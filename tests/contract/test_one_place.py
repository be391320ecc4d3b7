"""For every sequence of what can be done to an outbox, each event is in exactly one place."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inngest_outbox.errors import IdempotencyKeyReusedError
from inngest_outbox.outbox.keys import IdempotencyKey
from inngest_outbox.outbox.model import Batch, Dead, Filter, Isolated, Retry, Settlement, State
from tests.support.memory_outbox import MemoryStorage
from tests.support.named_rows import named
from tests.support.postgres_rows import empty_outbox
from tests.support.storage import Outbox, PostgresStorage, SqliteStorage, Storage, ask, claim, event

STATES = (State.PENDING, State.DELIVERED, State.DEAD)
STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 6)),
    st.tuples(st.just("append_with_key"), st.integers(1, 2)),
    st.tuples(
        st.just("append_all"),
        st.lists(st.sampled_from([None, None, 1, 2, 3]), min_size=1, max_size=6),
        st.sampled_from([b"1", b"1", b"2"]),
    ),
    st.tuples(
        st.just("claim"),
        st.integers(1, 5),
        st.sampled_from(Isolated),
        st.sampled_from([0.0, 0.4, 1.0]),
    ),
    st.tuples(
        st.just("settle"),
        st.integers(0, 3),
        st.lists(st.sampled_from("dax-"), min_size=1, max_size=5),
    ),
    st.tuples(st.just("restart")),
    st.tuples(st.just("replay"), st.integers(1, 3)),
    st.tuples(st.just("discard"), st.sampled_from(STATES)),
    st.tuples(st.just("purge")),
)


class Model:
    """Where each event has to be, and the outbox that is held to it."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.places: dict[str, State] = {}
        self.isolated: set[str] = set()
        self.claims: list[Batch] = []
        self.holders: dict[str, str] = {}
        self.uses: dict[int, tuple[str, bytes]] = {}

    async def append(self, count: int) -> None:
        events = [event() for _ in range(count)]
        await asyncio.gather(*(self.outbox.intake.append(each) for each in events))
        self.places |= dict.fromkeys((each.id for each in events), State.PENDING)

    async def append_with_key(self, number: int) -> None:
        await self.append_all([number], b"1")

    async def append_all(self, numbers: list[int | None], digest: bytes) -> None:
        """One call: all of its events are stored or replayed, or it is refused and leaves none."""
        uses = {key: use for key, use in self.uses.items() if use[0] in self.places}
        events = [event() for _ in numbers]
        keys = [number and IdempotencyKey(f"k-{number}", digest * 32) for number in numbers]
        if any(uses[number][1] != digest for number in numbers if number in uses):
            with pytest.raises(IdempotencyKeyReusedError):
                await self.outbox.intake.append_all(events, keys)
            return
        receipts = await self.outbox.intake.append_all(events, keys)
        for number, one, receipt in zip(numbers, events, receipts, strict=True):
            known = uses.setdefault(number, (one.id, digest))[0] if number else one.id
            assert (receipt.event_id, receipt.replayed) == (known, known != one.id)
            self.places.setdefault(known, State.PENDING)
        self.uses = uses

    async def claim(self, most: int, isolated: Isolated, fresh_share: float) -> None:
        due = {event_id for event_id, state in self.places.items() if state is State.PENDING}
        wanted = due - self.isolated if isolated is Isolated.NONE else due
        if not wanted:
            return
        batch = await claim(
            self.outbox, ask(most, isolated=isolated, fresh_share=fresh_share, lease_seconds=600)
        )
        got = [entry.event_id for entry in batch.entries]
        assert 1 <= len(got) <= most
        assert len(set(got)) == len(got)
        assert set(got) <= wanted
        assert not self.isolated.intersection(got) or len(got) == 1
        self.places |= dict.fromkeys(got, State.DELIVERING)
        self.holders |= dict.fromkeys(got, batch.claim)
        self.claims.append(batch)

    async def settle(self, which: int, fates: list[str]) -> None:
        if not self.claims:
            return
        batch = self.claims[which % len(self.claims)]
        pairs = [
            (entry, fates[number % len(fates)])
            for number, entry in enumerate(batch.entries)
            if fates[number % len(fates)] != "-"
        ]
        held = [
            (entry.event_id, fate)
            for entry, fate in pairs
            if self.holders.get(entry.event_id) == batch.claim
        ]
        stale = await self.outbox.queue.settle(
            Settlement(
                batch.claim,
                delivered=[entry.seq for entry, fate in pairs if fate == "d"],
                retry=[
                    Retry(entry.seq, 0, 1, isolated=True) for entry, fate in pairs if fate == "a"
                ],
                dead=[Dead(entry.seq, 1, "rejected", "") for entry, fate in pairs if fate == "x"],
            )
        )
        assert stale == len(pairs) - len(held)
        moves = {"d": State.DELIVERED, "a": State.PENDING, "x": State.DEAD}
        for event_id, fate in held:
            self.places[event_id] = moves[fate]
            del self.holders[event_id]
            if fate == "a":
                self.isolated.add(event_id)

    def restarted(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.places |= dict.fromkeys(self.holders, State.PENDING)
        self.holders.clear()

    async def replay(self, most: int) -> None:
        replayed = await self.outbox.repairs.replay(
            await named(self.outbox.inspector, Filter(state=State.DEAD, limit=most)), actor="test"
        )
        assert all(self.places[event_id] is State.DEAD for event_id in replayed)
        assert len(replayed) == min(most, Counter(self.places.values())[State.DEAD])
        self.places |= dict.fromkeys(replayed, State.PENDING)
        self.isolated.difference_update(replayed)

    async def discard(self, state: State) -> None:
        gone = await self.outbox.repairs.discard(
            await named(self.outbox.inspector, Filter(state=state, limit=2)), actor="test"
        )
        assert all(self.places.pop(event_id) is state for event_id in gone)

    async def purge(self) -> None:
        count = await self.outbox.repairs.purge(older_than_seconds=-1, actor="test")
        gone = [each for each, state in self.places.items() if state is State.DELIVERED]
        assert count == len(gone)
        for event_id in gone:
            del self.places[event_id]

    async def check(self) -> None:
        rows = await self.outbox.inspector.rows(Filter(limit=10_000))
        assert len(rows) == len(self.places)
        assert {row.id: row.state for row in rows} == self.places
        counts = Counter(self.places.values())
        stats = await self.outbox.inspector.stats()
        assert (stats.pending, stats.delivering, stats.delivered, stats.dead) == (
            counts[State.PENDING],
            counts[State.DELIVERING],
            counts[State.DELIVERED],
            counts[State.DEAD],
        )


async def follow(storage: Storage, steps: list[tuple[Any, ...]]) -> None:
    model: Model | None = None
    remaining = list(steps)
    while remaining or model is None:
        async with storage.open() as outbox:
            if model is None:
                model = Model(outbox)
            else:
                model.restarted(outbox)
                await model.check()
            while remaining:
                name, *arguments = remaining.pop(0)
                if name == "restart":
                    break
                await getattr(model, name)(*arguments)
                await model.check()


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "memory"])
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEPS, min_size=3, max_size=14))
def test_each_event_is_in_exactly_one_place(
    request: pytest.FixtureRequest, kind: str, steps: list[tuple[Any, ...]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        storage: Storage = MemoryStorage()
        if kind == "sqlite":
            storage = SqliteStorage(Path(folder) / "outbox.db")
        if kind == "postgres":
            storage = PostgresStorage(request.getfixturevalue("postgres_outbox_url"))
            empty_outbox(storage.url)
        asyncio.run(follow(storage, steps))
