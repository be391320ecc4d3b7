"""A row is found by one of its ids; the digest of a moved one says whether it is the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from inngest_outbox.outbox.event import Meta
from inngest_outbox.outbox.inngest_id import InngestIds, decode_ulid, encode_ulid
from inngest_outbox.outbox.model import Filter, Row, State
from inngest_outbox.outbox.move.transfer import TransferRow
from inngest_outbox.outbox.row_lookup import RowLookup, find_by_ulid
from tests.support.made_row import ACCEPTED_MS, made_row

IDS = InngestIds(b"odd\x01\x01\x01")
WRAP = 1 << 32  # the ULIDs of two rows so far apart end alike


def row(seq: int, *, inngest_id: str | None = None) -> Row:
    ulid = inngest_id or IDS.ulid(seq, ACCEPTED_MS)
    return made_row(id=f"e-{seq}", owner="ada", inngest_id=ulid, seq=seq)


class Rows:
    """Rows as a store finds them, newest first; a row with an id from elsewhere has an alias."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = sorted(rows, key=lambda one: one.seq, reverse=True)
        self.looked = 0

    async def rows(self, wanted: Filter) -> list[Row]:
        self.looked += 1
        assert wanted.limit == 1
        return [one for one in self._rows if _matches(one, wanted)][:1]


def _matches(one: Row, wanted: Filter) -> bool:
    if wanted.alias is not None:
        return _moved_id(one) == wanted.alias
    first = 0 if wanted.after_seq is None else wanted.after_seq + 1
    return one.seq >= first and (wanted.before_seq is None or one.seq < wanted.before_seq)


def _moved_id(one: Row) -> str | None:
    return one.inngest_id if one.inngest_id != IDS.ulid(one.seq, ACCEPTED_MS) else None


MOVED = encode_ulid(decode_ulid(IDS.ulid(5, ACCEPTED_MS)) + (1 << 90))


@pytest.mark.parametrize("seq", [1, 2, 9, WRAP - 1, WRAP, WRAP + 9, 3 * WRAP + 5])
@pytest.mark.parametrize("beyond", [0, 7, WRAP - 1])
async def test_a_row_is_found_by_the_number_in_its_ulid(seq: int, beyond: int) -> None:
    wanted = row(seq)
    rows = Rows([row(1 if seq > 1 else 2), wanted, row(seq + beyond)] if beyond else [wanted])
    assert wanted.inngest_id
    assert await find_by_ulid(rows, wanted.inngest_id) == wanted
    assert rows.looked <= (2 if seq + beyond < WRAP else 3)


async def test_a_moved_row_is_found_under_the_ulid_that_it_brought() -> None:
    moved = row(3, inngest_id=MOVED)
    assert await find_by_ulid(Rows([moved, row(5)]), MOVED) == moved


async def test_a_row_of_the_same_number_with_another_ulid_is_not_the_one() -> None:
    rows = Rows([row(5)])
    assert await find_by_ulid(rows, MOVED) is None
    assert rows.looked == 3  # for the newest, for the number, for the ULID
    assert await find_by_ulid(Rows([]), MOVED) is None


@pytest.mark.parametrize("text", ["", "x", "0" * 25, "0" * 27, "8" + "0" * 25, "U" + "0" * 25])
async def test_a_text_that_is_no_ulid_is_not_looked_for(text: str) -> None:
    rows = Rows([row(1, inngest_id=text)])
    assert (await find_by_ulid(rows, text), rows.looked) == (None, 0)


@pytest.mark.parametrize("state", State)
def test_a_row_is_at_inngest_under_the_ulid_that_it_answered(state: State) -> None:
    ours = msgspec.structs.replace(row(5), state=state)
    has_it = state in (State.SENT, State.DELIVERED)
    for answered, ulid in ((None, ours.inngest_id), (MOVED, MOVED)):
        found = msgspec.structs.replace(ours, meta=Meta(answered_id=answered))
        assert found.at_inngest == (ulid if has_it else None)


async def test_an_event_is_looked_for_by_each_id_that_its_owner_may_know() -> None:
    ways: list[object] = []

    class Absent:
        async def find(self, event_id: str) -> None:
            ways.append(event_id)

        async def rows(self, wanted: Filter) -> list[Row]:
            ways.append((wanted.alias, wanted.owner, wanted.limit))
            return found if len(ways) == looks else []

    found = [row(5)]
    every = ["a", ("a", "dev ada", 1), ("ada/a", "dev ada", 1)]
    for looks, expected in ((2, found[0]), (3, found[0]), (4, None)):
        ways.clear()
        absent: Any = Absent()
        assert await RowLookup(absent, absent).find("a", "dev ada") == expected
        assert ways == every[:looks]


TRANSFERRED = TransferRow(
    *(3, "own", "a/b", "owner", "u-1", 1000, "dead", 1, 2, True, 1100, 1200),
    *("rejected", "words", ((1150, "note"),), "key", "digest", "sha"),
    Meta("mine", "branch", trace="trace", moved_id="ulid"),
)


def test_the_digest_of_a_moved_event_has_all_but_its_number_and_the_time_it_is_held_until() -> None:
    assert len(TRANSFERRED.digest()) == 32
    for field in set(TRANSFERRED.__struct_fields__) - {"meta"}:
        changed = msgspec.structs.replace(TRANSFERRED, **{field: "other"})
        assert (changed.digest() == TRANSFERRED.digest()) is (field == "seq"), field
    for field in Meta.__struct_fields__:
        meta = msgspec.structs.replace(TRANSFERRED.meta, **{field: "other"})
        changed = msgspec.structs.replace(TRANSFERRED, meta=meta)
        assert (changed.digest() == TRANSFERRED.digest()) is (field == "due_at_ms"), field
