"""How much of an outbox belongs to one owner."""

from __future__ import annotations

import msgspec


class OwnerShare(msgspec.Struct, frozen=True, gc=False):
    """The rows of one owner in every state, and the bytes of their payloads."""

    owner: str
    rows: int
    bytes: int
