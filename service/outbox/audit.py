"""What the audit says of rows that an operator changed; the same in every store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from service.outbox.model import Filter

MAX_NAMED = 200


def detail_of(wanted: Filter, ids: Sequence[str]) -> str:
    """How many rows, which filter chose them, and which they were.

    All ids up to 200 rows. Beyond that the SHA-256 of the ids, sorted and joined by line feeds.

    >>> detail_of(Filter(reason="rejected"), ["e-2", "e-1"])
    '2 rows (reason=rejected, limit=100): e-2, e-1'
    """
    given = msgspec.structs.asdict(wanted)
    chosen = {name: value for name, value in given.items() if value and name != "ids"}
    words = ", ".join(f"{name}={value}" for name, value in chosen.items())
    if len(ids) <= MAX_NAMED:
        named = ", ".join(ids)
    else:
        named = f"sha256 {hashlib.sha256(chr(10).join(sorted(ids)).encode()).hexdigest()}"
    return f"{len(ids)} rows ({words}): {named}"
