"""A batch with a payload that was damaged where it is stored: its rows are sent one by one."""

from __future__ import annotations

from service.inngest.dedupe_horizon import HorizonCheck
from service.inngest.delivery_request import UndividableError
from service.inngest.send_result import SendResult
from service.outbox.inngest_id import InngestIds
from service.outbox.model import Batch, Entry, Retry, Settlement
from service.relay.sends import InFlight
from tests.support.breakers import knowing
from tests.support.delivery_room import FAILED, PASSING, Room
from tests.support.virtual_time import run_in_virtual_time

IDS = InngestIds(bytes(6))


def damaged(*seqs: int) -> Batch:
    """Rows of which the second has no JSON."""
    payloads = [b'"%d"' % seq for seq in seqs]
    payloads[1] = payloads[1].rstrip(b'"')
    return Batch("c", tuple(Entry(seq, f"e-{seq}", 0, "u") for seq in seqs), b",".join(payloads))


def delivered(room: Room, rows: Batch) -> Room:
    """The room after it delivered the rows. All its places are free then."""

    async def main() -> None:
        await room.deliver(rows)

    run_in_virtual_time(main())
    assert room.sends.count(0) == InFlight()
    return room


def alone(*seqs: int) -> Settlement:
    """These rows are due again at once, each to be claimed alone; no attempt counts."""
    return Settlement("c", retry=[Retry(seq, 0.0, 0, isolated=True) for seq in seqs])


def test_rows_that_are_to_leave_in_requests_of_their_own_are_claimed_one_by_one() -> None:
    room = delivered(Room(ids=IDS), damaged(1, 2, 9))
    assert room.settled == [alone(1, 2, 9)]
    assert (room.order, room.heard.begun) == ([], [])


def test_rows_of_a_request_that_is_to_be_divided_are_claimed_one_by_one() -> None:
    room = Room(knowing(PASSING, found_at=0.0))
    room.answer = lambda seqs: FAILED
    delivered(room, damaged(1, 2, 3))
    assert room.order == [[1, 2, 3]]
    assert room.settled == [alone(1, 2, 3)]


def test_only_the_rows_without_an_outcome_are_claimed_one_by_one() -> None:
    room = Room()
    room.answer = lambda seqs: SendResult(400, ("1", "2", ""), "bad")
    delivered(room, damaged(1, 2, 3, 4, 5))
    assert room.order == [[1, 2, 3, 4, 5]]
    assert room.settled[0].delivered == [1, 2]
    assert room.settled[1] == alone(4, 5)


def test_rows_beside_old_ones_are_claimed_one_by_one() -> None:
    class Undividable(Room):
        async def check(self, rows: Batch, now_ms: int) -> HorizonCheck:
            raise UndividableError

    rows = damaged(1, 2)
    room = delivered(Undividable(checked=HorizonCheck(rows, None)), rows)
    assert (room.order, room.settled) == ([], [alone(1, 2)])


def test_what_inngest_has_long_had_is_settled_once_beside_damaged_rows() -> None:
    held = Settlement("c", delivered=[1])
    checked = HorizonCheck(damaged(2, 3, 9), held)
    room = delivered(Room(ids=IDS, checked=checked), damaged(1, 2, 3, 9))
    assert room.settled == [held, alone(2, 3, 9)]


def test_a_damaged_row_alone_is_sent_and_judged_like_any_other() -> None:
    rows = Batch("c", (Entry(2, "e-2", 0, "u", isolated=True),), b'"2')
    room = Room(ids=IDS)
    room.answer = lambda seqs: SendResult(400, ("",), "bad")
    delivered(room, rows)
    assert room.order == [[2]]
    [settlement] = room.settled
    [left] = settlement.retry
    assert (left.seq, left.attempts, left.isolated) == (2, 1, True)
