"""The values of the queue say what an event is that nothing has happened to."""

from __future__ import annotations

import msgspec
import pytest

from service.outbox.event import Meta
from service.outbox.inngest_id import WantedEvent
from service.outbox.model import (
    MAX_NOTES,
    ClaimRequest,
    DeliveryRecord,
    Entry,
    Filter,
    Named,
    Row,
    SentEntry,
    State,
)
from service.outbox.move.transfer import TransferRow

ENTRY = Entry(3, "own", 1000, "u-1")
SENT = SentEntry(3, "own", 1000, 1.5)
ROW = Row(
    *("own", "a/b", "owner", "u-1", State.PENDING, 0, 0),
    *(False, 1000, None, None, 0.0, None, None, None, (), 10),
)


@pytest.mark.parametrize("value", [ENTRY, SENT, ROW])
def test_inngest_has_an_event_under_its_own_id_or_under_the_one_its_sender_chose(
    value: Entry | SentEntry | Row,
) -> None:
    assert value.as_sent == WantedEvent("own")
    chosen = msgspec.structs.replace(value, meta=Meta("mine", "branch"))
    assert chosen.as_sent == WantedEvent("mine", "branch")


def test_an_entry_that_was_never_sent_has_no_past() -> None:
    assert (ENTRY.attempts, ENTRY.sends, ENTRY.isolated) == (0, 0, False)
    assert (ENTRY.first_sent_at_ms, ENTRY.meta) == (None, Meta())


def test_a_row_that_inngest_has_answered_was_sent_once() -> None:
    assert SENT.sends == 1


def test_a_row_is_of_no_store_until_one_numbers_it() -> None:
    assert ROW.seq == 0


def test_a_claim_takes_the_oldest_rows_unless_it_says_otherwise() -> None:
    assert ClaimRequest(10, 1000, 30.0).fresh_share == 0


def test_a_delivery_that_nobody_saved_has_delivered_nothing() -> None:
    record = DeliveryRecord("healthy", "", 1, 0, 0.0, 1000)
    assert (record.rate, record.revision, record.paused_by) == (0.0, 0, None)


def test_a_search_shows_100_rows_whether_they_were_sent_or_not() -> None:
    assert (Filter().limit, Filter().never_sent) == (100, False)


def test_named_rows_are_found_by_all_their_ids_and_what_else_is_given() -> None:
    ids = tuple(f"e-{number}" for number in range(150))
    assert Named(ids).filter == Filter(ids=ids, limit=150)
    given = Named(ids[:2], State.DEAD, "ada", never_sent=True)
    wanted = Filter(ids=ids[:2], state=State.DEAD, owner="ada", never_sent=True, limit=2)
    assert given.filter == wanted


def test_a_row_keeps_20_notes() -> None:
    assert MAX_NOTES == 20


MOVED = TransferRow(
    *(3, "own", "a/b", "owner", "u-1", 1000, "dead", 1, 2, True, 1100, 1200),
    *("rejected", "words", ((1150, "note"),), "key", "digest", "sha"),
    Meta("mine", "branch", trace="trace", moved_id="ulid"),
)


def test_a_moved_event_has_one_digest_wherever_it_is_numbered() -> None:
    assert msgspec.structs.replace(MOVED, seq=9).digest() == MOVED.digest()
    assert len(MOVED.digest()) == 32


def test_a_digest_stays_when_the_time_of_a_held_event_comes() -> None:
    delayed = msgspec.structs.replace(MOVED.meta, due_at_ms=9)
    assert msgspec.structs.replace(MOVED, meta=delayed).digest() == MOVED.digest()


@pytest.mark.parametrize("field", sorted(set(MOVED.__struct_fields__) - {"seq", "meta"}))
def test_whatever_else_differs_gives_another_digest(field: str) -> None:
    changed = msgspec.structs.replace(MOVED, **{field: "other"})
    assert changed.digest() != MOVED.digest()


@pytest.mark.parametrize("field", sorted(set(Meta.__struct_fields__) - {"due_at_ms"}))
def test_another_rare_attribute_gives_another_digest(field: str) -> None:
    changed = msgspec.structs.replace(MOVED.meta, **{field: "other"})
    assert msgspec.structs.replace(MOVED, meta=changed).digest() != MOVED.digest()
