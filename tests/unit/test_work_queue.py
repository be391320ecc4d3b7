"""What waits for the writer: which items share a transaction, and that each gets its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from service.errors import OutboxUnavailableError
from service.outbox.sqlite.work_queue import WorkQueue, cancel_all
from tests.support.virtual_time import in_virtual_time
from tests.support.work_kinds import Kind


class Room:
    """A queue of two kinds and a blocking one."""

    def __init__(self) -> None:
        self.first, self.second, self.blocking = Kind(), Kind(), Kind()
        self.queue = WorkQueue((self.first, self.second), self.blocking)

    def taken(self, *, with_due: bool = True) -> dict[Kind, list[object]]:
        group = self.queue.take(with_due=with_due)
        return {kind: waiting.items for kind, waiting in group.items()}  # type: ignore[misc]


@in_virtual_time
async def test_all_that_waits_is_taken_once_in_the_order_of_the_kinds() -> None:
    room = Room()
    queue = room.queue
    assert not queue.has_work
    assert not queue.arrived.is_set()
    assert room.taken() == {}
    for kind, item in ((room.second, 1), (room.blocking, 2), (room.first, 3), (room.second, 4)):
        queue.submit(kind, item)
    assert queue.arrived.is_set()
    assert queue.has_work
    assert len(queue) == 4
    taken = room.taken()
    assert taken == {room.first: [3], room.second: [1, 4], room.blocking: [2]}
    assert list(taken) == [room.first, room.second, room.blocking]
    assert not queue.has_work
    assert room.taken() == {}


@in_virtual_time
async def test_a_blocking_item_wants_a_transaction_when_it_is_new_woken_or_beside_others() -> None:
    room = Room()
    queue = room.queue
    room.blocking.answer = lambda item: None
    queue.submit(room.blocking, 1)
    assert not queue.has_work

    def nobody_answers() -> None:
        group = queue.take(with_due=True)
        assert list(group) == [room.blocking]
        queue.answer(group, [[None]])

    nobody_answers()
    assert room.taken() == {}
    queue.arrived.clear()
    queue.wake()
    assert queue.arrived.is_set()
    nobody_answers()
    assert room.taken() == {}
    queue.submit(room.second, 2)
    assert room.taken() == {room.second: [2], room.blocking: [1]}


@pytest.mark.parametrize(
    ("due", "with_due", "is_taken"),
    [(None, True, False), (0.5, True, False), (0.0, True, True), (0.0, False, False)],
)
def test_a_blocking_kind_that_is_due_wants_a_transaction_also_without_items(
    due: float | None, *, with_due: bool, is_taken: bool
) -> None:
    @in_virtual_time
    async def trial() -> None:
        room = Room()
        room.blocking.due_at = due
        assert room.queue.due_in_seconds() == due
        assert room.taken(with_due=with_due) == ({room.blocking: []} if is_taken else {})
        room.queue.submit(room.first, 1)
        beside = {room.blocking: []} if is_taken else {}
        assert room.taken(with_due=with_due) == {room.first: [1], **beside}

    trial()


@in_virtual_time
async def test_the_blocking_kind_hears_whether_items_wait() -> None:
    room = Room()
    room.blocking.due_in_seconds = lambda *, waiting: 1.0 if waiting else None  # type: ignore[method-assign]
    assert room.queue.due_in_seconds() is None
    room.queue.submit(room.blocking, 1)
    assert room.queue.due_in_seconds() == 1.0


@in_virtual_time
async def test_a_cancelled_blocking_item_is_forgotten_and_other_work_is_done_all_the_same() -> None:
    room = Room()
    queue = room.queue
    futures = [queue.submit(room.blocking, item) for item in "abc"]
    written = queue.submit(room.first, 1)
    futures[1].cancel()
    written.cancel()
    group = queue.take(with_due=True)
    queue.answer(group, [["done 1"], ["for a", "for c"]])
    assert await futures[0] == "for a"
    assert await futures[2] == "for c"
    assert room.first.told == [("committed", [1], ["done 1"], [False])]
    assert room.blocking.told == [("committed", ["a", "c"], ["for a", "for c"], [True, True])]


@in_virtual_time
async def test_every_kind_knows_of_a_commit_before_anybody_has_a_result() -> None:
    room = Room()
    kinds = room.first, room.second, room.blocking
    futures = [room.queue.submit(kind, 1) for kind in kinds]
    done: list[list[bool]] = []
    for kind in kinds:
        kind.after_commit = lambda: done.append([future.done() for future in futures])
    room.queue.answer(room.queue.take(with_due=True), [["a"], ["b"], ["c"]])
    assert done == [[False] * 3] * 3
    assert await asyncio.gather(*futures) == ["a", "b", "c"]


@in_virtual_time
async def test_a_kind_that_fails_after_a_commit_keeps_no_result_back() -> None:
    room = Room()
    futures = [room.queue.submit(kind, 1) for kind in (room.first, room.second)]
    room.first.after_commit = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        room.queue.answer(room.queue.take(with_due=True), [["a"], ["b"]])
    assert await asyncio.gather(*futures) == ["a", "b"]


@in_virtual_time
async def test_each_submitter_gets_its_result_or_its_error_and_who_got_none_waits_on() -> None:
    room = Room()
    queue = room.queue
    good, bad, late, gone = (queue.submit(room.blocking, item) for item in range(4))
    group = queue.take(with_due=True)
    gone.cancel()
    error = ValueError("no")
    queue.answer(group, [["yes", error, None, None]])
    assert await good == "yes"
    with pytest.raises(ValueError, match="no"):
        await bad
    assert room.blocking.told == [
        ("committed", [0, 1, 2, 3], ["yes", error, None, None], [True, True, True, False])
    ]
    assert len(queue) == 1
    queue.wake()
    queue.answer(queue.take(with_due=True), [["at last"]])
    assert await late == "at last"


@in_virtual_time
async def test_a_failure_reaches_all_who_wait_and_their_kinds() -> None:
    room = Room()
    queue = room.queue
    futures = [
        queue.submit(room.first, 1),
        queue.submit(room.first, 2),
        queue.submit(room.blocking, 3),
    ]
    futures[1].cancel()
    queue.fail(OutboxUnavailableError("The disk is full."))
    errors = await asyncio.gather(*futures, return_exceptions=True)
    assert [str(one) for one in errors] == ["The disk is full.", "", "The disk is full."]
    # Each raises an error of its own: one that is raised twice collects both tracebacks.
    assert errors[0] is not errors[2]
    assert room.first.told == [("failed", [1, 2])]
    assert len(queue) == 0
    assert room.taken() == {}


@in_virtual_time
async def test_a_cancelled_queue_cancels_its_submitters() -> None:
    room = Room()
    taken = room.queue.submit(room.first, 1)
    group = room.queue.take(with_due=True)
    waiting = [room.queue.submit(kind, 2) for kind in (room.first, room.blocking)]
    room.queue.cancel()
    assert [one.cancelled() for one in (taken, *waiting)] == [False, True, True]
    cancel_all(group)
    assert taken.cancelled()


@pytest.mark.parametrize(
    ("at_first", "arriving", "turns", "joined"),
    [
        (0, 1, 8, 1),
        (0, 3, 8, 3),
        (1, 0, 8, 1),
        (1, 1, 8, 2),
        (1, 5, 8, 6),
        (1, 9, 3, 4),
        (2, 9, 0, 2),
    ],
)
def test_requests_that_arrive_in_the_next_turns_join_while_they_arrive(
    at_first: int, arriving: int, turns: int, joined: int
) -> None:
    @in_virtual_time
    async def trial() -> None:
        room, loop = Room(), asyncio.get_running_loop()
        for item in range(at_first):
            room.queue.submit(room.first, item)

        def arrive(left: int) -> None:
            if left:
                room.queue.submit(room.first, "new")
                loop.call_soon(arrive, left - 1)

        loop.call_soon(arrive, arriving)
        await room.queue.gather(turns)
        assert len(room.queue) == joined
        assert loop.time() == 0

    trial()


def test_a_quiet_queue_is_gathered_in_two_turns() -> None:
    turns: list[Callable[[], object]] = []

    @in_virtual_time
    async def trial() -> None:
        room, loop = Room(), asyncio.get_running_loop()
        room.queue.submit(room.first, 1)

        def turn() -> None:
            turns.append(turn)
            loop.call_soon(turn)

        loop.call_soon(turn)
        await room.queue.gather(8)
        assert len(turns) <= 2

    trial()
