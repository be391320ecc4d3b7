"""Inngest's own id of an event: a ULID that follows from the row and is never stored.

A request may carry a seed, `<milliseconds>,<10 bytes in base64>`. Inngest then gives its event at
position p, counted from 1, the ULID with this time, the first six of the bytes, and the last four
plus p. A row's number in the store takes the place of the position, so the row has the same ULID in
whatever request it is sent. The ULID depends on the row alone, never on its batch.

The time of a ULID is the end of the slot in which its event was accepted, so that rows of one slot
can share a request. Inngest cancels a run (`cancelOn`) only by an event whose ULID is above the
run's, so a time before the acceptance would lose cancellations. A time far ahead would let an event
cancel a run that began after it.
"""

from __future__ import annotations

import base64
import functools
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from inngest_outbox.outbox.event import NO_META, Meta

SEED_HEADER = "x-inngest-event-id-seed"
ENVIRONMENT_HEADER = "x-inngest-env"
SLOT_MS = 200
PREFIX_BYTES = 6

_COUNTER_BYTES = 4
COUNTER_BITS = 8 * _COUNTER_BYTES
COUNTER_MASK = (1 << COUNTER_BITS) - 1
_ENTROPY_BITS = 80
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TO_DIGITS = bytes.maketrans(_CROCKFORD.encode(), b"0123456789abcdefghijklmnopqrstuv")
_PAIRS = [high + low for high in _CROCKFORD for low in _CROCKFORD]
_PAIR_BITS = 10
_PAIR_MASK = (1 << _PAIR_BITS) - 1
_LOWER_BITS = 3 * _PAIR_BITS


class WantedEvent(NamedTuple):
    """An event as it was sent: its id on the wire, and its environment, None for our own.

    `event_id` None says that the ULID is the id.
    """

    event_id: str | None
    environment: str | None = None

    @classmethod
    def sent(cls, own_id: str, meta: Meta) -> WantedEvent:
        """The event of the row with the id `own_id`."""
        wire_id = own_id if meta.wire_id is None else meta.wire_id
        return cls(wire_id or None, meta.environment)


@dataclass(frozen=True, slots=True)
class InngestIds:
    """The ids of one outbox's rows; `prefix` is six random bytes.

    Rows below `since` have one of the `earlier` prefixes, each from a seq on, the latest first.

    >>> InngestIds(bytes(6)).ulid(seq=33, accepted_at_ms=299_900)
    '00000094Z00000000000000011'
    """

    prefix: bytes
    since: int = 0
    earlier: tuple[tuple[int, bytes], ...] = ()

    def of(self, seq: int) -> InngestIds:
        """The same for one row: without the prefixes of others."""
        return InngestIds(self._prefix(seq)) if self.earlier else self

    def number(self, seq: int, accepted_at_ms: int, meta: Meta = NO_META) -> int:
        """The ULID of a row as a number."""
        if meta.moved_id is not None:
            return decode_ulid(meta.moved_id)
        return _first_of(self._prefix(seq), _slot(accepted_at_ms, meta)) | seq & COUNTER_MASK

    def ulid(self, seq: int, accepted_at_ms: int, meta: Meta = NO_META) -> str:
        """The ULID of a row as text."""
        if meta.moved_id:
            return meta.moved_id
        upper = _upper_text(self._prefix(seq), _slot(accepted_at_ms, meta), seq >> _PAIR_BITS)
        return upper + _PAIRS[seq & _PAIR_MASK]

    def made(self, seed: str) -> bool:
        """True for a seed that `seed` made for these rows.

        >>> InngestIds(bytes(6)).made("300000,AAAAAAAAAAAAAA==")
        True
        """
        begins = base64.b64decode(seed.partition(",")[2])[:PREFIX_BYTES]
        return begins in (self.prefix, *(prefix for _, prefix in self.earlier))

    def _prefix(self, seq: int) -> bytes:
        if seq >= self.since:
            return self.prefix
        return next((prefix for first, prefix in self.earlier if seq >= first), self.prefix)


def _slot(accepted_at_ms: int, meta: Meta) -> int:
    """The slot in which the event may first leave: a delayed event counts from its due time."""
    return max(accepted_at_ms, meta.due_at_ms) // SLOT_MS


@functools.lru_cache(maxsize=256)
def _upper_text(prefix: bytes, slot: int, upper_seq: int) -> str:
    """All but the last two characters: 1,024 rows of a slot have them in common."""
    counter = upper_seq << _PAIR_BITS & COUNTER_MASK
    return encode_ulid(_first_of(prefix, slot) | counter)[:-2]


@functools.lru_cache(maxsize=256)
def _first_of(prefix: bytes, slot: int) -> int:
    """The lowest ULID of a slot: its rows have the upper bits in common."""
    head = (slot + 1) * SLOT_MS << (_ENTROPY_BITS - COUNTER_BITS) | int.from_bytes(prefix)
    return head << COUNTER_BITS


def encode_ulid(number: int) -> str:
    """The text of a ULID.

    >>> encode_ulid(32)
    '00000000000000000000000010'
    """
    return (
        _upper_chars(number >> _LOWER_BITS)
        + _PAIRS[number >> 2 * _PAIR_BITS & _PAIR_MASK]
        + _PAIRS[number >> _PAIR_BITS & _PAIR_MASK]
        + _PAIRS[number & _PAIR_MASK]
    )


@functools.lru_cache(maxsize=256)
def _upper_chars(number: int) -> str:
    """All but the last six characters: rows of the same minutes have them in common."""
    shifts = range(9 * _PAIR_BITS, -_PAIR_BITS, -_PAIR_BITS)
    return "".join(_PAIRS[number >> shift & _PAIR_MASK] for shift in shifts)


def decode_ulid(text: str) -> int:
    """The number of a ULID. Raises ValueError for another text.

    >>> decode_ulid("00000000000000000000000010")
    32
    """
    if not _ULID.fullmatch(text):
        raise ValueError("A ULID is 26 characters of Crockford's base 32")
    return int(text.encode().translate(_TO_DIGITS), len(_CROCKFORD))


def seed(number: int) -> str:
    """The seed header of a request whose first event has the ULID `number`.

    >>> seed(InngestIds(bytes(6)).number(seq=1, accepted_at_ms=299_999))
    '300000,AAAAAAAAAAAAAA=='
    """
    head, counter = number >> COUNTER_BITS, (number - 1) & COUNTER_MASK
    milliseconds, prefix = divmod(head, 1 << (_ENTROPY_BITS - COUNTER_BITS))
    entropy = prefix.to_bytes(PREFIX_BYTES) + counter.to_bytes(_COUNTER_BYTES)
    return f"{milliseconds},{base64.b64encode(entropy).decode()}"


def consecutive_runs(numbers: Sequence[int]) -> list[range]:
    """The positions of `numbers`, split wherever a number does not follow the one before.

    >>> consecutive_runs([4, 5, 6, 9, 10, 3])
    [range(0, 3), range(3, 5), range(5, 6)]
    """
    breaks = [at for at in range(1, len(numbers)) if numbers[at] != numbers[at - 1] + 1]
    edges = [0, *breaks, len(numbers)] if numbers else []
    return [range(first, end) for first, end in itertools.pairwise(edges)]
