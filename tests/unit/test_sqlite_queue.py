"""Claims that are cancelled as they come: their batch is given back, and nothing else is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.model import Batch, Entry, Settlement
from service.outbox.sqlite.queue import SqliteQueue
from tests.support.storage import ask
from tests.support.virtual_time import in_virtual_time

BATCH = Batch("claim", (), b"")


class Parts:
    """The writer, the claims and the throttle of a queue; it remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.pause = 0.0
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.queue = SqliteQueue(self, self, "settlements", self)  # type: ignore[arg-type]

    def submit(self, kind: Any, item: Any) -> asyncio.Future[Any]:
        self.told.append(("submit", "claims" if kind is self else kind, item))
        return self.future

    def wake(self) -> None:
        self.told.append("wake")

    def abandon(self, batch: Batch) -> None:
        self.told.append(("abandon", batch))

    def pause_seconds(self, max_events: int) -> float:
        self.told.append(("pause", max_events))
        return self.pause

    def claims(self) -> None:
        self.told.append("claims")

    def claimed(self, *, full: bool) -> None:
        self.told.append(("claimed", full))


@in_virtual_time
async def test_a_claim_gives_what_the_writer_gives() -> None:
    parts, wanted = Parts(), ask(7)
    parts.future.set_result(BATCH)
    assert await parts.queue.claim(wanted) is BATCH
    submitted = ("submit", "claims", wanted)
    assert parts.told == [("pause", 7), "claims", submitted, ("claimed", False)]
    assert asyncio.get_running_loop().time() == 0


@in_virtual_time
async def test_the_throttle_is_told_that_a_claim_has_all_that_it_may_have() -> None:
    parts = Parts()
    entry = Entry(1, "id", 0, "u-1")
    parts.future.set_result(Batch("claim", (entry, entry), b""))
    await parts.queue.claim(ask(3))
    await parts.queue.claim(ask(2))
    told = [one for one in parts.told if one[0] == "claimed"]
    assert told == [("claimed", False), ("claimed", True)]


@in_virtual_time
async def test_a_claim_waits_as_long_as_the_throttle_says() -> None:
    parts = Parts()
    parts.pause = 0.25
    parts.future.set_result(BATCH)
    await parts.queue.claim(ask())
    assert asyncio.get_running_loop().time() == 0.25


@in_virtual_time
async def test_a_settlement_gives_what_the_writer_gives() -> None:
    parts, settlement = Parts(), Settlement("claim")
    parts.future.set_result(3)
    assert await parts.queue.settle(settlement) == 3
    assert parts.told == [("submit", "settlements", settlement)]


@pytest.mark.parametrize("came", ["a batch", "an error", "nothing"])
def test_a_claim_that_is_cancelled_gives_back_what_has_come(came: str) -> None:
    @in_virtual_time
    async def trial() -> None:
        parts = Parts()
        claiming = asyncio.ensure_future(parts.queue.claim(ask()))
        await asyncio.sleep(0)
        if came == "a batch":
            parts.future.set_result(BATCH)
        elif came == "an error":
            parts.future.set_exception(OutboxUnavailableError())
        claiming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await claiming
        given_back = [("abandon", BATCH), "wake"] if came == "a batch" else []
        assert parts.told[3:] == given_back

    trial()
