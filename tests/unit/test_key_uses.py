"""What an Idempotency-Key's earlier uses mean for a call's events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from service.outbox.event import Event, Meta
from service.outbox.inngest_id import InngestIds
from service.outbox.keys import Division, IdempotencyKey, KeyUse, Receipt, divide
from service.outbox.storable import storable

IDS = InngestIds(b"prefix")
NOW_MS = 1_000_000_000
DIGEST = b"d" * 32
HOUR_AGO_MS = NOW_MS - 3_600_000


def event(name: str) -> Event:
    return Event(name, "a/b", "ada", "u-1", NOW_MS, b"{}")


def key(name: str = "k") -> IdempotencyKey:
    return IdempotencyKey(name, DIGEST, 24 * 3600.0)


def divided(
    events: Sequence[Event],
    keys: Sequence[IdempotencyKey | None] = (),
    uses: Mapping[tuple[str, str], KeyUse] | None = None,
) -> Division:
    return divide(events, keys, uses=uses or {}, ids=IDS, next_seq=100, now_ms=NOW_MS)


def stored(*, accepted_at_ms: int = HOUR_AGO_MS, moved_id: str | None = None) -> KeyUse:
    return KeyUse("earlier", 7, accepted_at_ms, DIGEST, Meta(moved_id=moved_id))


def test_a_key_that_was_used_gives_the_first_receipt_again() -> None:
    moved = stored(moved_id="ulid")
    found = divided([event("a"), event("b")], [key(), None], {("ada", "k"): moved})
    again = Receipt("earlier", 7, HOUR_AGO_MS, IDS, replayed=True, meta=Meta(moved_id="ulid"))
    assert found.receipts == [again, Receipt("b", 100, NOW_MS, IDS)]
    assert (found.new, found.uses, found.expired) == ([1], {}, [])


def test_two_events_of_a_call_with_one_key_are_one_event() -> None:
    found = divided([event("a"), event("b"), event("c")], [key(), key(), key("other")])
    assert [receipt.event_id for receipt in found.receipts] == ["a", "a", "c"]
    assert [receipt.replayed for receipt in found.receipts] == [False, True, False]
    assert [receipt.seq for receipt in found.receipts] == [100, 100, 101]
    assert found.new == [0, 2]


@pytest.mark.parametrize(("age_ms", "is_free"), [(86_400_000, False), (86_400_001, True)])
def test_a_key_can_be_used_again_when_its_lifetime_is_over(age_ms: int, is_free: bool) -> None:  # noqa: FBT001
    uses = {("ada", "k"): stored(accepted_at_ms=NOW_MS - age_ms)}
    found = divided([event("a")], [key()], uses)
    assert found.receipts[0].replayed is not is_free
    assert found.expired == ([7] if is_free else [])
    assert found.new == ([0] if is_free else [])
    if is_free:
        assert found.uses["ada", "k"].event_id == "a"


def test_a_key_whose_event_is_no_row_yet_does_not_expire() -> None:
    uses = {("ada", "k"): KeyUse("earlier", 7, 0, DIGEST, stored=False)}
    found = divided([event("a")], [key()], uses)
    assert (found.receipts[0].replayed, found.expired) == (True, [])


def test_a_receipt_names_the_event_as_inngest_does() -> None:
    new = divided([event("a")]).receipts[0]
    assert new.inngest_id == IDS.ulid(100, NOW_MS)
    moved = divided([event("a")], [key()], {("ada", "k"): stored(moved_id="ulid")}).receipts[0]
    assert moved.inngest_id == "ulid"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a/b", "a/b"),
        ("a\x00b", "a\ufffdb"),
        ("\ud800x", "?x"),
        ("\u00e9\U0001f600", "\u00e9\U0001f600"),
    ],
)
def test_what_postgresql_cannot_store_is_replaced(text: str, kept: str) -> None:
    assert storable(text) == kept
