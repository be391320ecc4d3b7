"""Who is asking: the one value that every sign-in ends in."""

from __future__ import annotations

import msgspec


class User(msgspec.Struct, frozen=True, gc=False):
    """A signed-in person.

    `id` is unique and stable. `email_verified` is true only where the identity provider says so;
    it alone makes `email` good enough to recognise an operator. None means "not known".
    """

    id: str
    email: str | None = None
    name: str | None = None
    organization_id: str | None = None
    email_verified: bool = False
