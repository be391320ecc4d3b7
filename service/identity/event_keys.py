"""Event keys: what machines post events with.

A key belongs to a name. The name owns the events, so that keys can be replaced one by one. The
invariant: keys are compared by their digests, never character by character.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from service.identity.user import EVENT_KEY_ISSUER, User


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
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
