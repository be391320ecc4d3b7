"""The people and machines that ask: users, event keys, and operators by a verified e-mail.

A key belongs to a name. The name owns the events, so that keys can be replaced one by one. The
invariant: keys are compared by their digests, never character by character.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from inngest_outbox.errors import OperatorRequiredError
from inngest_outbox.observe.printable import printable

# Whose ids a front end's sign-in and the development sign-in give, and whose the ids are that all
# sign-ins share.
NEXT_AUTH_ISSUER = "next-auth"
AUTH_JS_ISSUER = "authjs"
DEV_ISSUER = "dev"
SHARED_ISSUER = "shared"
# Whose the ids of users are by default that are appended in SQL.
SQL_ISSUER = "database"
# Whose ids the names of event keys are. An issuer of people is a URL or one of the words above.
EVENT_KEY_ISSUER = "key"
_MAX_ID_CHARS = 255
_MAX_TEXT_CHARS = 1024
_LAST_SECOND = 2**53


class User(msgspec.Struct, frozen=True, gc=False):
    """A signed-in person, or a machine with an event key.

    Equal ids of two issuers are two people. `issuer` has no space. `id` is unique and stable for
    its issuer. `email_verified` is true only where the identity provider says so; without it
    `email` recognises no operator. None means "not known".
    """

    issuer: str
    id: str
    email: str | None = None
    name: str | None = None
    organization_id: str | None = None
    email_verified: bool = False

    @property
    def owner(self) -> str:
        """The owner of this person's events, settings and uploads.

        >>> User("https://issuer.example", "u-1").owner
        'https://issuer.example u-1'
        """
        return f"{self.issuer} {self.id}"

    @property
    def actor(self) -> str:
        """The name of this person in the audit.

        >>> User(EVENT_KEY_ISSUER, "cron").actor, User("dev", "u-1").actor
        ('key cron', 'u-1')
        """
        return self.owner if self.issuer == EVENT_KEY_ISSUER else self.id


class FoundUser(msgspec.Struct, frozen=True, gc=False):
    """The user of an authentic session, and the wall seconds until which it is valid."""

    user: User
    good_until: float


def user_from_claims(
    claims: Mapping[str, object], *, issuer: str, id_claims: tuple[str, ...]
) -> User | None:
    """The user of `issuer` in verified claims, None without a usable id.

    The first usable one of `id_claims` counts. An id is 1 to 255 printable characters, or an
    integer. Claims of a wrong type count as not known.
    """
    user_id = next(filter(None, (_id(claims.get(name)) for name in id_claims)), None)
    if user_id is None:
        return None
    return User(
        issuer=issuer,
        id=user_id,
        email=_text(claims.get("email")),
        name=_text(claims.get("name")),
        organization_id=_id(claims.get("organizationId")),
        email_verified=claims.get("email_verified") is True,
    )


def seconds_of(claims: Mapping[str, object], name: str, default: object = None) -> float | None:
    """The time that a verified claim names in wall seconds, None for any other value."""
    value = claims.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < _LAST_SECOND else None


def _id(value: object) -> str | None:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        return None
    return text if len(text) <= _MAX_ID_CHARS else None


def _text(value: object) -> str | None:
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_TEXT_CHARS:
        return None
    # JavaScript strings may contain half of a surrogate pair, which has no UTF-8.
    return printable(value.encode(errors="replace").decode())


class EventKeys:
    """The keys that are accepted, with the name of each.

    >>> keys = EventKeys({"0123456789abcdef": "cron"})
    >>> keys.user("0123456789abcdef").owner, keys.user("guess")
    ('key cron', None)
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._users = {_digest(key): User(EVENT_KEY_ISSUER, name) for key, name in names.items()}

    def __bool__(self) -> bool:
        return bool(self._users)

    def user(self, key: str) -> User | None:
        """The machine that a key belongs to, None for an unknown key."""
        return self._users.get(_digest(key))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


class Operators:
    """The people in OPERATOR_EMAILS, in any letter case."""

    def __init__(self, emails: Iterable[str]) -> None:
        self._emails = frozenset(_plain_email(email) for email in emails)

    def includes(self, user: User) -> bool:
        """True when `user` is an operator."""
        email = user.email
        return bool(email and user.email_verified and _plain_email(email) in self._emails)

    def require(self, user: User) -> None:
        """Raise OperatorRequiredError unless `user` is an operator."""
        if not self.includes(user):
            raise OperatorRequiredError


def _plain_email(email: str) -> str:
    # Some letters outside ASCII become ASCII in lower case: another person's address.
    return email.lower() if email.isascii() else email
