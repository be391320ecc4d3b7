"""The digest of a moved event: what changes it, and what does not."""

from __future__ import annotations

import msgspec

from service.outbox.event import Meta
from service.outbox.move.transfer import TransferRow

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
