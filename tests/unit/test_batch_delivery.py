"""One batch from its claim to its settlement: every row is settled once, and none sent too late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from inngest_outbox.inngest.dedupe_horizon import HorizonCheck
from inngest_outbox.inngest.delivery_request import UndividableError
from inngest_outbox.inngest.send_result import SendResult, Signal
from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.inngest_id import ENVIRONMENT_HEADER, SEED_HEADER, InngestIds
from inngest_outbox.outbox.model import Batch, Entry, Retry, Settlement
from inngest_outbox.relay.sends import BreakerState, InFlight, SendsInFlight
from inngest_outbox.relay.unconfirmed import Unconfirmed
from tests.support.breakers import IDLE, fresh, knowing
from tests.support.delivery_room import FAILED, PASSING, Room, batch, taken
from tests.support.virtual_time import in_virtual_time, run_in_virtual_time

IDS = InngestIds(bytes(6))


def due(*seqs: int, isolated: bool = False) -> Settlement:
    """These rows are due again at once, claimed alone if `isolated`; no attempt counts."""
    return Settlement("c", retry=[Retry(seq, 0.0, 0, isolated) for seq in seqs])


def delivered(*seqs: int) -> Settlement:
    return Settlement("c", delivered=[*seqs], retry=[])


def failing(*bad: int) -> Callable[[list[int]], SendResult]:
    """Requests with one of these events fail."""
    return lambda seqs: FAILED if {*seqs} & {*bad} else taken(seqs)


def refusing(*bad: int) -> Callable[[list[int]], SendResult]:
    """Events before the first of these are taken."""

    def answer(seqs: list[int]) -> SendResult:
        good = [*map(str, seqs)]
        for at, seq in enumerate(seqs):
            if seq in bad:
                return SendResult(400, (*good[:at], ""), "bad")
        return taken(seqs)

    return answer


def at_five(room: Room, rows: Batch, **options: Any) -> Room:
    """The room after it delivered the rows, beginning at 5 s. All its places are free then."""

    async def main() -> None:
        await asyncio.sleep(5)
        await room.deliver(rows, **options)

    run_in_virtual_time(main())
    assert room.sends.count(0) == InFlight()
    return room


def rows_settled(room: Room) -> list[int]:
    """Each row that was settled."""
    named = []
    for one in room.settled:
        named += [*one.delivered, *one.sent, *(row.seq for row in (*one.retry, *one.dead))]
    return sorted(named)


def test_a_batch_that_is_taken_is_sent_once_settled_and_reported() -> None:
    rows = batch(1, 2, 3)
    room = at_five(Room(), rows)
    [sent] = room.sent
    assert (sent.seqs, sent.at, sent.apart, sent.in_flight) == ([1, 2, 3], 5.0, False, 1)
    assert not sent.headers
    assert room.settled == [delivered(1, 2, 3)]
    heard = room.heard
    assert (heard.begun, heard.around, heard.failed, heard.too_large) == ([rows], [rows], [], [])
    [(ended, result, done, seconds)] = heard.ended
    assert (ended, result, seconds) == (rows, taken([1, 2, 3]), 0.125)
    assert (done.signal, done.settlement) == (Signal.PASSED, room.settled[0])
    assert heard.lone == [(rows, Signal.PASSED)]
    assert room.breaker.streak.passed_at == 5.125


def test_isolated_events_are_sent_apart_from_the_others() -> None:
    assert [one.apart for one in at_five(Room(), batch(1, isolated=True)).sent] == [True]


@in_virtual_time
async def test_a_delivery_counts_as_in_flight_from_the_call() -> None:
    room = Room()
    for rows, count in [
        (batch(1, 2), InFlight(others=1, others_now=1)),
        (batch(3, isolated=True), InFlight(1, 1, 1, 1)),
    ]:
        coming = room.delivery.deliver(PASSING.permit(IDLE), rows, send_until=9.0)
        assert room.sends.count(0) == count
        coming.close()
    assert room.sends.events == 3


@in_virtual_time
async def test_what_was_claimed_under_another_breaker_is_put_back_unsent() -> None:
    room = Room()
    permit = PASSING.permit(IDLE)
    room.breaker = replace(PASSING, epoch=1)
    await room.delivery.deliver(permit, batch(1, 2), send_until=9.0)
    assert (room.sent, room.settled) == ([], [due(1, 2)])
    assert (room.heard.begun, room.heard.ended, room.sends.events) == ([], [], 0)


def test_a_request_that_fails_while_others_pass_is_repeated_and_then_halved() -> None:
    room = Room()
    room.answer = failing(1)
    at_five(room, batch(1, 2, 3, 4))
    assert room.order == [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2], [3, 4], [1, 2], [1], [2], [1]]
    assert [one.apart for one in room.sent] == [False] + [True] * 7
    assert rows_settled(room) == [1, 2, 3, 4]
    [left] = [row for one in room.settled for row in one.retry]
    assert (left.seq, left.isolated, left.attempts) == (1, True, 1)


def test_where_bad_events_are_known_it_is_halved_at_once() -> None:
    room = Room(knowing(PASSING, found_at=4.0))
    room.answer = failing(1)
    at_five(room, batch(1, 2))
    assert room.order == [[1, 2], [1], [2]]


def test_a_request_that_failed_slowly_is_divided_in_many_at_once() -> None:
    room = Room()
    room.seconds, room.answer = 1.0, failing(3)
    at_five(room, batch(*range(1, 17)))
    sizes = [len(seqs) for seqs in room.order]
    assert (set(sizes), sizes.count(16), sizes.count(2)) == ({16, 2, 1}, 1, 8)


def test_one_failure_is_one_for_the_breaker_however_often_its_parts_fail() -> None:
    room = Room()
    room.answer = failing(1, 2)
    at_five(room, batch(1, 2))
    assert len(room.sent) > 2
    assert room.breaker.limit.failing == 0.05


def test_what_follows_a_refused_event_is_sent_again_with_the_others() -> None:
    room = Room()
    room.answer = refusing(3)
    at_five(room, batch(1, 2, 3, 4, 5))
    assert room.order == [[1, 2, 3, 4, 5], [4, 5]]
    assert [one.apart for one in room.sent] == [False, False]
    assert room.settled[0].delivered == [1, 2]
    assert room.settled[1] == delivered(4, 5)
    assert rows_settled(room) == [1, 2, 3, 4, 5]


def test_what_follows_a_refused_event_of_a_part_that_failed_stays_apart() -> None:
    room = Room()
    answers = [FAILED, SendResult(400, ("",), "bad")]
    room.answer = lambda seqs: answers.pop(0) if answers else taken(seqs)
    at_five(room, batch(1, 2, 3))
    assert room.order == [[1, 2, 3], [1, 2, 3], [2, 3]]
    assert [one.apart for one in room.sent] == [False, True, True]


def test_no_request_begins_after_the_time_that_the_lease_allows() -> None:
    room = Room()
    room.answer, room.seconds = refusing(1, 2, 3), 4.0
    at_five(room, batch(1, 2, 3), send_until=9.0)
    assert [one.at for one in room.sent] == [5.0, 9.0]
    assert room.settled[-1] == due(3)
    assert rows_settled(room) == [1, 2, 3]


def test_a_batch_whose_turn_comes_too_late_is_put_back() -> None:
    room = at_five(Room(), batch(1, 2), send_until=4.9)
    assert (room.sent, room.settled) == ([], [due(1, 2)])


def test_parts_that_failed_and_have_no_time_left_are_isolated() -> None:
    room = Room()
    room.answer, room.seconds = failing(1, 2), 0.25
    at_five(room, batch(1, 2), send_until=5.25)
    assert [one.at for one in room.sent] == [5.0, 5.25]
    assert room.settled == [due(1, isolated=True), due(2, isolated=True)]


@pytest.mark.parametrize("send_until", [5.0, 99.0])
def test_a_stop_sends_no_failed_part_again_and_isolates_none(send_until: float) -> None:
    room = Room()

    def answer(seqs: list[int]) -> SendResult:
        room.stopping = True
        return FAILED

    room.answer = answer
    at_five(room, batch(1, 2), send_until=send_until)
    assert (room.order, room.settled) == ([[1, 2]], [due(1, 2)])


def test_a_stop_sends_what_no_request_has_had_yet() -> None:
    room = Room()
    room.stopping = True
    assert at_five(room, batch(1, 2)).settled == [delivered(1, 2)]


def test_a_fault_of_the_sender_is_reported_and_counts_against_no_event() -> None:
    room, fault = Room(fresh()), RuntimeError("ours")

    def answer(seqs: list[int]) -> SendResult:
        raise fault

    room.answer = answer
    at_five(room, batch(1, 2))
    assert (room.heard.failed, room.settled) == ([fault], [due(1, 2)])
    [(_, result, done, _)] = room.heard.ended
    assert (result.words, done.signal) == ("the sender failed: RuntimeError", Signal.UNREACHED)
    assert room.breaker.state is BreakerState.BACKING_OFF


def test_rows_with_gaps_between_their_numbers_are_sent_in_requests_with_a_seed_each() -> None:
    room = at_five(Room(ids=IDS), batch(1, 2, 9))
    assert room.order == [[1, 2], [9]]
    assert [(one.at, one.in_flight) for one in room.sent] == [(5.0, 2), (5.0, 2)]
    assert len({one.headers[SEED_HEADER] for one in room.sent}) == 2
    assert rows_settled(room) == [1, 2, 9]


def test_a_row_is_sent_to_its_environment() -> None:
    own = Meta(environment="branch")
    rows = Batch("c", tuple(Entry(seq, f"e-{seq}", 0, "u", meta=own) for seq in (1, 2)), b"1,2")
    assert [one.headers[ENVIRONMENT_HEADER] for one in at_five(Room(), rows).sent] == ["branch"]


@pytest.mark.parametrize("honoured", [True, False])
def test_what_can_be_confirmed_is_sent_and_reported_so_else_delivered(*, honoured: bool) -> None:
    room = Room(ids=IDS, unconfirmed=Unconfirmed(10))
    given = IDS.ulid(1, 0) if honoured else "01J"
    room.answer = lambda seqs: SendResult(200, (given,))
    at_five(room, batch(1))
    kept = msgspec.structs.replace(delivered(1), answered=((1, "01J"),))
    expected = Settlement("c", sent=[1], retry=[]) if honoured else kept
    assert room.settled == [expected]
    [(_, _, done, _)] = room.heard.ended
    assert done.settlement == expected


@pytest.mark.parametrize(
    ("left", "held", "sent"),
    [(batch(1, 2), None, [[1, 2]]), (batch(2), 1, [[2]]), (None, 1, [])],
)
def test_what_inngest_has_long_had_is_settled_and_not_sent(
    left: Batch | None, held: int | None, sent: list[list[int]]
) -> None:
    known = Settlement("c", delivered=[held]) if held else None
    room = at_five(Room(checked=HorizonCheck(left, known)), batch(1, 2))
    assert (room.order, room.heard.begun) == (sent, [left] if left else [])
    assert room.settled[0] == (known or delivered(1, 2))
    assert len(room.settled) == 1 + (held == 1 and left is not None)


async def test_a_claim_whose_events_go_singly_counts_as_so_many_requests() -> None:
    sends = SendsInFlight(2, lambda _: None)
    sends.enter(1, isolated=False, events=5, singly=True)
    sends.enter(1, isolated=False, events=5)
    sends.enter(0, isolated=True, events=3, singly=True)
    assert sends.count(1) == InFlight(isolated=3, others=6, isolated_now=0, others_now=6)
    assert sends.events == 13


def damaged(*seqs: int) -> Batch:
    """Rows of which the second has no JSON."""
    payloads = [b'"%d"' % seq for seq in seqs]
    payloads[1] = payloads[1].rstrip(b'"')
    return Batch("c", tuple(Entry(seq, f"e-{seq}", 0, "u") for seq in seqs), b",".join(payloads))


def test_rows_that_are_to_leave_in_requests_of_their_own_are_claimed_one_by_one() -> None:
    room = at_five(Room(ids=IDS), damaged(1, 2, 9))
    assert room.settled == [due(1, 2, 9, isolated=True)]
    assert (room.order, room.heard.begun) == ([], [])


def test_rows_of_a_request_that_is_to_be_divided_are_claimed_one_by_one() -> None:
    room = Room(knowing(PASSING, found_at=0.0))
    room.answer = lambda seqs: FAILED
    at_five(room, damaged(1, 2, 3))
    assert room.order == [[1, 2, 3]]
    assert room.settled == [due(1, 2, 3, isolated=True)]


def test_only_the_rows_without_an_outcome_are_claimed_one_by_one() -> None:
    room = Room()
    room.answer = lambda seqs: SendResult(400, ("1", "2", ""), "bad")
    at_five(room, damaged(1, 2, 3, 4, 5))
    assert room.order == [[1, 2, 3, 4, 5]]
    assert room.settled[0].delivered == [1, 2]
    assert room.settled[1] == due(4, 5, isolated=True)


def test_rows_beside_old_ones_are_claimed_one_by_one() -> None:
    class Undividable(Room):
        async def check(self, rows: Batch, now_ms: int) -> HorizonCheck:
            raise UndividableError

    rows = damaged(1, 2)
    room = at_five(Undividable(checked=HorizonCheck(rows, None)), rows)
    assert (room.order, room.settled) == ([], [due(1, 2, isolated=True)])


def test_what_inngest_has_long_had_is_settled_once_beside_damaged_rows() -> None:
    held = Settlement("c", delivered=[1])
    checked = HorizonCheck(damaged(2, 3, 9), held)
    room = at_five(Room(ids=IDS, checked=checked), damaged(1, 2, 3, 9))
    assert room.settled == [held, due(2, 3, 9, isolated=True)]


def test_a_damaged_row_alone_is_sent_and_judged_like_any_other() -> None:
    rows = Batch("c", (Entry(2, "e-2", 0, "u", isolated=True),), b'"2')
    room = Room(ids=IDS)
    room.answer = lambda seqs: SendResult(400, ("",), "bad")
    at_five(room, rows)
    assert room.order == [[2]]
    [settlement] = room.settled
    [left] = settlement.retry
    assert (left.seq, left.attempts, left.isolated) == (2, 1, True)
