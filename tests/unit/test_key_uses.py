"""What an Idempotency-Key's earlier uses mean for a call's events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from service.errors import IdempotencyKeyReusedError
from service.outbox.event import Event, Meta
from service.outbox.inngest_id import InngestIds
from service.outbox.keys import Division, IdempotencyKey, KeyUse, Receipt, divide, replay
from service.outbox.storable import storable

IDS = InngestIds(b"prefix")
NOW_MS = 1_000_000_000
DIGEST = b"d" * 32
DAY = 24 * 3600.0
HOUR_AGO_MS = NOW_MS - 3_600_000


def event(name: str, owner: str = "ada") -> Event:
    return Event(name, "a/b", owner, "u-1", NOW_MS, b"{}")


def key(name: str = "k", digest: bytes = DIGEST, lifetime: float | None = DAY) -> IdempotencyKey:
    return IdempotencyKey(name, digest, lifetime)


def divided(
    events: Sequence[Event],
    keys: Sequence[IdempotencyKey | None] = (),
    uses: Mapping[tuple[str, str], KeyUse] | None = None,
) -> Division:
    return divide(events, keys, uses=uses or {}, ids=IDS, next_seq=100, now_ms=NOW_MS)


def stored(*, accepted_at_ms: int = HOUR_AGO_MS, moved_id: str | None = None) -> KeyUse:
    return KeyUse("earlier", 7, accepted_at_ms, DIGEST, Meta(moved_id=moved_id))


def test_events_without_keys_are_all_new_and_get_the_next_numbers() -> None:
    for keys in ((), (None, None)):
        found = divided([event("a"), event("b")], keys)
        assert found.receipts == [Receipt("a", 100, NOW_MS, IDS), Receipt("b", 101, NOW_MS, IDS)]
        assert (found.new, found.uses, found.expired) == ([0, 1], {}, [])


def test_a_call_has_as_many_keys_as_events() -> None:
    with pytest.raises(ValueError, match="shorter"):
        divided([event("a"), event("b")], [key()])


def test_a_new_key_is_noted_with_its_event() -> None:
    found = divided([event("a"), event("b")], [None, key()])
    use = KeyUse("b", 101, NOW_MS, DIGEST, stored=False)
    assert (found.uses, found.new, found.expired) == ({("ada", "k"): use}, [0, 1], [])
    assert not found.receipts[1].replayed


def test_a_key_that_was_used_gives_the_first_receipt_again() -> None:
    moved = stored(moved_id="ulid")
    found = divided([event("a"), event("b")], [key(), None], {("ada", "k"): moved})
    again = Receipt("earlier", 7, HOUR_AGO_MS, IDS, replayed=True, meta=Meta(moved_id="ulid"))
    assert found.receipts == [again, Receipt("b", 100, NOW_MS, IDS)]
    assert (found.new, found.uses, found.expired) == ([1], {}, [])


def test_a_key_of_another_owner_is_another_key() -> None:
    assert divided([event("a")], [key()], {("bob", "k"): stored()}).new == [0]


def test_two_events_of_a_call_with_one_key_are_one_event() -> None:
    found = divided([event("a"), event("b"), event("c")], [key(), key(), key("other")])
    assert [receipt.event_id for receipt in found.receipts] == ["a", "a", "c"]
    assert [receipt.replayed for receipt in found.receipts] == [False, True, False]
    assert [receipt.seq for receipt in found.receipts] == [100, 100, 101]
    assert found.new == [0, 2]


def test_a_key_with_another_digest_is_refused() -> None:
    other = key(digest=b"e" * 32)
    with pytest.raises(IdempotencyKeyReusedError):
        divided([event("a")], [other], {("ada", "k"): stored()})
    with pytest.raises(IdempotencyKeyReusedError):
        divided([event("a"), event("b")], [key(), other])
    with pytest.raises(IdempotencyKeyReusedError):
        replay(other, stored(), IDS)


@pytest.mark.parametrize(("age_ms", "is_free"), [(86_400_000, False), (86_400_001, True)])
def test_a_key_can_be_used_again_when_its_lifetime_is_over(age_ms: int, is_free: bool) -> None:  # noqa: FBT001
    uses = {("ada", "k"): stored(accepted_at_ms=NOW_MS - age_ms)}
    found = divided([event("a")], [key()], uses)
    assert found.receipts[0].replayed is not is_free
    assert found.expired == ([7] if is_free else [])
    assert found.new == ([0] if is_free else [])
    if is_free:
        assert found.uses["ada", "k"].event_id == "a"


def test_an_expired_key_is_free_for_another_body_and_only_once_in_a_call() -> None:
    uses = {("ada", "k"): stored(accepted_at_ms=0)}
    other = key(digest=b"e" * 32)
    found = divided([event("a"), event("b")], [other, other], uses)
    assert [receipt.event_id for receipt in found.receipts] == ["a", "a"]
    assert found.expired == [7]


def test_a_key_without_a_lifetime_stays_with_its_event() -> None:
    uses = {("ada", "k"): stored(accepted_at_ms=0)}
    for forever in (key(lifetime=None), IdempotencyKey("k", DIGEST)):
        assert divided([event("a")], [forever], uses).receipts[0].replayed


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
