"""The values of the queue say what an event is that nothing has happened to."""

from __future__ import annotations

import msgspec
import pytest

from service.outbox.event import Meta
from service.outbox.inngest_id import WantedEvent
from service.outbox.model import Entry, Filter, Named, Row, SentEntry, State
from service.outbox.move.transfer import TransferRow
from tests.support.made_row import made_row

ENTRY = Entry(3, "own", 1000, "u-1")
SENT = SentEntry(3, "own", 1000, 1.5)
ROW = made_row(id="own")


@pytest.mark.parametrize("value", [ENTRY, SENT, ROW])
def test_inngest_has_an_event_under_its_own_id_or_under_the_one_its_sender_chose(
    value: Entry | SentEntry | Row,
) -> None:
    assert value.as_sent == WantedEvent("own")
    chosen = msgspec.structs.replace(value, meta=Meta("mine", "branch"))
    assert chosen.as_sent == WantedEvent("mine", "branch")


def test_named_rows_are_found_by_all_their_ids_and_what_else_is_given() -> None:
    ids = tuple(f"e-{number}" for number in range(150))
    assert Named(ids).filter == Filter(ids=ids, limit=150)
    given = Named(ids[:2], State.DEAD, "ada", never_sent=True)
    wanted = Filter(ids=ids[:2], state=State.DEAD, owner="ada", never_sent=True, limit=2)
    assert given.filter == wanted


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


def test_whatever_else_differs_gives_another_digest() -> None:
    for field in set(MOVED.__struct_fields__) - {"seq", "meta"}:
        changed = msgspec.structs.replace(MOVED, **{field: "other"})
        assert changed.digest() != MOVED.digest(), field
    for field in set(Meta.__struct_fields__) - {"due_at_ms"}:
        meta = msgspec.structs.replace(MOVED.meta, **{field: "other"})
        assert msgspec.structs.replace(MOVED, meta=meta).digest() != MOVED.digest(), field
