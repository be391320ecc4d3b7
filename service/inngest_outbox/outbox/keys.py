"""Idempotency keys, and what their earlier uses mean; the same in every store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import msgspec

from inngest_outbox.errors import IdempotencyKeyReusedError
from inngest_outbox.outbox.event import NO_META, Event, Meta
from inngest_outbox.outbox.event_ids import USED_MS
from inngest_outbox.outbox.inngest_id import InngestIds

Digests = Callable[[bytes], Sequence[bytes]]
"""Digests (32 bytes) of what a key stands for: the one to store, then those of earlier secrets."""
RUN_SECONDS = 86_400.0
"""The running time after which something that is past its time by the clock goes."""
ANY_CONTENT = bytes(32)
"""The digest of a key that stands for an event whatever it holds."""


class IdempotencyKey(msgspec.Struct, frozen=True, gc=False):
    """A caller's key with the digest (32 bytes) of what the key stands for.

    An event that was accepted more than `lifetime_seconds` ago, by the store's clock, has lost the
    key: it can be used again. None: the event keeps the key as long as it is stored. `earlier` are
    digests of the same under earlier secrets; an event that was stored with one is the same.
    """

    key: str
    digest: bytes
    lifetime_seconds: float | None = None
    earlier: tuple[bytes, ...] = ()

    @classmethod
    def of(
        cls, key: str, message: bytes, digests: Digests, lifetime_seconds: float | None = None
    ) -> IdempotencyKey:
        """The key that stands for `message`."""
        digest, *earlier = digests(message)
        return cls(key, digest, lifetime_seconds, tuple(earlier))

    @classmethod
    def of_id(cls, wire_id: str, name: str, environment: str | None) -> IdempotencyKey:
        """The key of the event that its sender gave this id.

        Inngest takes an id to mean the same event for the functions of one name in one environment.
        """
        key = hashed("id", environment or "", name, wire_id)
        return cls(key, ANY_CONTENT, lifetime_seconds=USED_MS / 1000)


def hashed(*words: str) -> str:
    """A key of one length in place of words of any."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def plain_digests(message: bytes) -> Sequence[bytes]:
    """The digest of a service without an encryption key."""
    return (hashlib.sha256(message).digest(),)


Keys = Sequence[IdempotencyKey | None]
"""The key of each event of a call; empty where none has one."""


class KeyUse(msgspec.Struct, frozen=True, gc=False):
    """The event that has a key, and the digest of that use. `stored` says that it is a row."""

    event_id: str
    seq: int
    accepted_at_ms: int
    digest: bytes
    meta: Meta = NO_META
    stored: bool = True


KeyUses = Mapping[tuple[str, str], KeyUse]
"""The uses of keys by (owner, key)."""


class Division(msgspec.Struct, frozen=True, gc=False):
    """The events of one call, divided by their keys.

    `receipts` are those of all events, in their order; the new ones get the seqs after the given
    one. `new` are the positions of the new events, `uses` their keys, and `expired` the seqs of the
    rows that lose a key to them.
    """

    receipts: Sequence[Receipt]
    new: Sequence[int]
    uses: KeyUses
    expired: Sequence[int]


def divide(
    events: Sequence[Event],
    keys: Keys,
    *,
    uses: KeyUses,
    ids: InngestIds,
    next_seq: int,
    now_ms: int,
    is_aged: Callable[[int, float], bool] | None = None,
) -> Division:
    """The events divided into new ones and repeats, beside earlier `uses` of their keys.

    `is_aged` says whether the service has run for so many seconds since a seq was accepted: a clock
    that was wrong for a while frees no key. None where that is not known. Raises
    IdempotencyKeyReusedError where one key was used with another digest.
    """
    newest = ids.of(next_seq)
    receipts: list[Receipt] = []
    new: list[int] = []
    mine: dict[tuple[str, str], KeyUse] = {}
    expired: list[int] = []
    for at, (event, key) in enumerate(zip(events, keys or (None,) * len(events), strict=True)):
        seq = next_seq + len(new)
        if key:
            name = (event.owner, key.key)
            use = mine.get(name) or uses.get(name)
            if use and not _is_expired(key, use, now_ms, is_aged):
                receipts.append(replay(key, use, ids))
                continue
            if use:
                expired.append(use.seq)
            mine[name] = KeyUse(
                event.id, seq, event.accepted_at_ms, key.digest, event.meta, stored=False
            )
        new.append(at)
        receipts.append(Receipt(event.id, seq, event.accepted_at_ms, newest, meta=event.meta))
    return Division(receipts, new, mine, expired)


def _is_expired(
    key: IdempotencyKey,
    use: KeyUse,
    now_ms: int,
    is_aged: Callable[[int, float], bool] | None,
) -> bool:
    lifetime = key.lifetime_seconds
    if lifetime is None or not use.stored or now_ms - use.accepted_at_ms <= lifetime * 1000:
        return False
    return is_aged is None or is_aged(use.seq, min(lifetime, RUN_SECONDS))


def replay(key: IdempotencyKey, use: KeyUse, ids: InngestIds) -> Receipt:
    """The first receipt again. Raises IdempotencyKeyReusedError for another digest."""
    if use.digest not in (key.digest, *key.earlier):
        raise IdempotencyKeyReusedError
    return Receipt(
        use.event_id, use.seq, use.accepted_at_ms, ids.of(use.seq), replayed=True, meta=use.meta
    )


class Receipt(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The event that an append stored, or found under its key.

    `replayed` means that it is the key's first event. `ids` derives its ULID from `seq`,
    `accepted_at_ms` and `meta`.
    """

    event_id: str
    seq: int
    accepted_at_ms: int
    ids: InngestIds
    replayed: bool = False
    meta: Meta = NO_META

    @property
    def inngest_id(self) -> str:
        """The ULID under which Inngest has the event, or will have it."""
        return self.ids.ulid(self.seq, self.accepted_at_ms, self.meta)
