"""The ids that the Event API answers: ULIDs, counted up from a start.

The same seed header and the same position give the same id, so a client that repeats a request
with its seed gets the ids of the first time.
"""

from __future__ import annotations

import base64
import binascii
import secrets

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_PAIR_BITS = 10
_PAIR_COUNT = 1 << _PAIR_BITS
_RANDOM_BITS = 80
_ULID_BITS = 128
_SEED_BYTES = 10
_COUNTER_MASK = (1 << 32) - 1
_LAST_MS = (1 << 48) - 1


def ulids(start: int, count: int) -> list[str]:
    """The `count` ULIDs from the number `start` on.

    >>> ulids(31, 2)
    ['0000000000000000000000000Z', '00000000000000000000000010']
    """
    ids: list[str] = []
    while len(ids) < count:
        low = start % _PAIR_COUNT
        prefix = _encode(start)[:-2]
        ids += [prefix + pair for pair in _PAIRS[low : low + count - len(ids)]]
        start += _PAIR_COUNT - low
    return ids


def request_ulids(seed: str | None, count: int, now_ms: int) -> list[str]:
    """The ids of a request's `count` events: from its seed header, else from the clock and chance.

    A seed is `<ms>,<10 bytes in base64>`; one that can't be read counts as none. The event at
    position p, counted from 1, adds p to the last four of the bytes, without a carry.
    """
    seeded = _read_seed(seed) if seed else None
    if seeded is None:
        return ulids((now_ms << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS - 1), count)
    kept, low = seeded & ~_COUNTER_MASK, (seeded + 1) & _COUNTER_MASK
    before_wrap = min(count, _COUNTER_MASK + 1 - low)
    return ulids(kept | low, before_wrap) + ulids(kept, count - before_wrap)


def _read_seed(seed: str) -> int | None:
    ms, _, entropy = seed.removeprefix("+").partition(",")
    try:
        raw = base64.b64decode(entropy, validate=True)
    except (binascii.Error, ValueError):
        return None
    if (
        not (ms.isascii() and ms.isdigit())
        or len(raw) != _SEED_BYTES
        or not 0 < int(ms) <= _LAST_MS
    ):
        return None
    return (int(ms) << _RANDOM_BITS) | int.from_bytes(raw)


def _encode(number: int) -> str:
    return "".join(
        _PAIRS[(number >> shift) % _PAIR_COUNT] for shift in range(_ULID_BITS - 8, -1, -_PAIR_BITS)
    )
