"""How far a bounded look goes."""

from __future__ import annotations

import msgspec


class Reach(msgspec.Struct, frozen=True, gc=False):
    """How far down the rows a look goes: the last of them."""

    seq: int
    accepted_at_ms: int
