"""How far a bounded look goes."""

from __future__ import annotations

import msgspec


class Reach(msgspec.Struct, frozen=True, gc=False):
    """How far down the rows a look goes: the last of them.

    `is_last` says that no row is below; where it is false, there may be one.
    """

    seq: int
    accepted_at_ms: int
    is_last: bool = False
