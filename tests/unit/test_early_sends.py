"""Which batches are prepared before their commit, when they leave, and who gets the result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.inngest.prepared_send import MAX_BYTES
from service.inngest.seeded import seeded_requests
from service.inngest.send_result import SendResult
from service.outbox.foresight import Foresight
from service.outbox.inngest_id import InngestIds
from service.outbox.model import Batch, Entry
from service.relay.early_sends import EarlySends

IDS = InngestIds(b"abcdef")
PREPARED, NEW = SendResult(200, ("01J",), "prepared"), SendResult(200, ("01J",), "new")
START_MS = 1_700_000_000_000


class Prepared:
    """A prepared request that begins unless it has failed; it remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.has_failed = False

    def begin(self) -> bool:
        self.told.append("begin")
        return not self.has_failed

    def cancel(self) -> None:
        self.told.append("cancel")

    async def result(self) -> SendResult:
        return PREPARED


class Desk:
    """A sender that prepares, and early sends in front of it."""

    def __init__(self, ids: InngestIds | None = IDS) -> None:
        self.foresight = Foresight()
        self.wanted = True
        self.prepared: list[tuple[tuple[Any, ...], Prepared]] = []
        self.sent: list[tuple[Any, ...]] = []
        self.early = EarlySends(self, self.foresight, ids)  # type: ignore[arg-type]

    def prepare(self, *arguments: Any) -> Prepared:
        one = Prepared()
        self.prepared.append((arguments, one))
        return one

    async def send(self, *arguments: Any) -> SendResult:
        self.sent.append(arguments)
        return NEW

    async def foresee(self, rows: Batch) -> None:
        self.foresight.foresee(rows)
        await asyncio.sleep(0)

    async def commit(self, rows: Batch) -> None:
        self.foresight.commit(rows)
        await asyncio.sleep(0)

    @property
    def told(self) -> list[list[str]]:
        """What each prepared request was told."""
        return [one.told for _, one in self.prepared]


def batch(*seqs: int, payloads: bytes = b"{}", **changes: Any) -> Batch:
    return Batch(
        "c", tuple(Entry(seq, f"e-{seq}", START_MS, "u", **changes) for seq in seqs), payloads
    )


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    one = Desk()
    with one.early.preparing(lambda: one.wanted):
        yield one


async def test_a_foreseen_batch_leaves_once_it_is_claimed_and_gives_its_result(desk: Desk) -> None:
    rows = batch(1, environment="branch")
    await desk.foresee(rows)
    [(arguments, _)] = desk.prepared
    seed = seeded_requests(rows, IDS)[0].seed
    assert seed is not None
    assert (arguments, desk.told) == ((b"{}", seed, "branch"), [[]])
    assert await desk.early.send(b"{}", seed, "branch") is PREPARED
    assert (desk.told, desk.sent) == ([["begin"]], [])
    assert await desk.early.send(b"{}", seed, "branch") is NEW


async def test_a_foreseen_batch_leaves_when_its_commit_has_passed(desk: Desk) -> None:
    rows = batch(1)
    await desk.foresee(rows)
    await desk.commit(rows)
    [(arguments, _)] = desk.prepared
    assert desk.told == [["begin"]]
    assert desk.foresight.may_have_left(rows.claim)
    assert await desk.early.send(*arguments) is PREPARED
    assert "cancel" not in desk.told[0]
    assert desk.sent == []
    await desk.commit(rows)
    assert desk.told == [["begin", "begin"]]


async def test_the_commit_of_another_batch_lets_nothing_leave(desk: Desk) -> None:
    rows = batch(1)
    await desk.foresee(rows)
    await desk.commit(Batch("other", rows.entries, rows.payloads))
    assert desk.told == [[]]


async def test_the_commit_of_a_batch_that_was_not_prepared_is_no_fault(desk: Desk) -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    await desk.foresee(batch(1, 2))
    await desk.commit(batch(1, 2))
    assert (faults, desk.told) == ([], [])


async def test_a_request_that_has_failed_before_its_commit_has_not_left(desk: Desk) -> None:
    rows = batch(1)
    await desk.foresee(rows)
    desk.prepared[0][1].has_failed = True
    await desk.commit(rows)
    assert not desk.foresight.may_have_left(rows.claim)


async def test_what_is_no_longer_wanted_does_not_leave_at_its_commit(desk: Desk) -> None:
    rows = batch(1)
    await desk.foresee(rows)
    desk.wanted = False
    await desk.commit(rows)
    assert desk.told == [[]]


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_another_request_than_the_prepared_one_is_sent_itself(desk: Desk, at: int) -> None:
    rows = batch(1)
    await desk.foresee(rows)
    [(arguments, _)] = desk.prepared
    other = [*arguments[:at], b"other" if at == 0 else "other", *arguments[at + 1 :]]
    assert await desk.early.send(*other) is NEW
    assert (desk.sent, desk.told) == ([tuple(other)], [["cancel"]])


async def test_a_request_that_has_failed_before_it_began_is_sent_anew(desk: Desk) -> None:
    rows = batch(1)
    await desk.foresee(rows)
    [(arguments, prepared)] = desk.prepared
    prepared.has_failed = True
    assert await desk.early.send(*arguments) is NEW
    assert await desk.early.send(*arguments) is NEW
    assert desk.told == [["begin", "cancel"]]


async def test_what_was_not_foreseen_is_sent_when_it_is_sent(desk: Desk) -> None:
    assert await desk.early.send(b"{}") is NEW
    assert desk.sent == [(b"{}", None, None)]


async def test_a_batch_that_another_one_follows_never_leaves(desk: Desk) -> None:
    await desk.foresee(batch(1))
    await desk.foresee(batch(2))
    assert desk.told == [["cancel"], []]
    assert await desk.early.send(*desk.prepared[1][0]) is PREPARED
    assert desk.told == [["cancel"], ["begin"]]


async def test_nothing_is_prepared_while_it_is_not_wanted(desk: Desk) -> None:
    await desk.foresee(batch(1))
    desk.wanted = False
    await desk.foresee(batch(2))
    assert desk.told == [["cancel"]]


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        (batch(1), 1),
        (batch(1, 2), 0),
        (batch(1, sends=1), 0),
        (batch(1, payloads=b"x" * MAX_BYTES), 1),
        (batch(1, payloads=b"x" * (MAX_BYTES + 1)), 0),
    ],
)
async def test_one_small_event_that_was_never_sent_is_prepared(
    desk: Desk, rows: Batch, count: int
) -> None:
    await desk.foresee(rows)
    assert len(desk.prepared) == count


async def test_without_ids_a_request_has_no_seed() -> None:
    desk = Desk(ids=None)
    with desk.early.preparing(lambda: True):
        await desk.foresee(batch(1))
    assert desk.prepared[0][0] == (b"{}", None, None)


async def test_at_the_end_what_waits_is_cancelled_and_nothing_more_is_prepared(desk: Desk) -> None:
    other = Desk()
    with other.early.preparing(lambda: True):
        await other.foresee(batch(1))
    assert other.told == [["cancel"]]
    await other.foresee(batch(2))
    assert len(other.prepared) == 1
