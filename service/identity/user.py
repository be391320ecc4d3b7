"""Who is asking: the one value that every sign-in ends in."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

_MAX_ID_CHARS = 255
_MAX_TEXT_CHARS = 1024


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


def user_from_claims(claims: Mapping[str, object], *, id_claims: tuple[str, ...]) -> User | None:
    """The user that verified claims name: the first usable id of `id_claims`, None without one.

    An id is 1 to 255 printable characters, or an integer; claims of the wrong type are not known.
    """
    user_id = next(filter(None, (_id(claims.get(name)) for name in id_claims)), None)
    if user_id is None:
        return None
    return User(
        id=user_id,
        email=_text(claims.get("email")),
        name=_text(claims.get("name")),
        organization_id=_id(claims.get("organizationId")),
        email_verified=claims.get("email_verified") is True,
    )


def _id(value: object) -> str | None:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        return None
    return text if len(text) <= _MAX_ID_CHARS else None


def _text(value: object) -> str | None:
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_TEXT_CHARS:
        return None
    # Half of a surrogate pair, which JavaScript strings may hold, has no UTF-8.
    return value.encode("utf-8", "replace").decode()
