"""A cache of users by the raw Cookie header of their requests.

It is bounded in entries and in characters; the least recently used one is dropped first.
"""

from __future__ import annotations

from collections import OrderedDict

from service.identity.user import FoundUser

MAX_REMEMBERED = 10_000
_MAX_CHARS = 16 * 1024 * 1024


class RememberedUsers:
    """At most `max_remembered` users, and 16 Mi characters of headers."""

    def __init__(self, max_remembered: int = MAX_REMEMBERED) -> None:
        self._max_remembered = max_remembered
        self._found: OrderedDict[str, FoundUser] = OrderedDict()
        self._chars = 0

    def __len__(self) -> int:
        return len(self._found)

    def get(self, cookies: str, now: float) -> FoundUser | None:
        """The user of `cookies`, None when unknown or no longer valid at `now`."""
        found = self._found.get(cookies)
        if found is None:
            return None
        if now >= found.good_until:
            self._forget(cookies)
            return None
        self._found.move_to_end(cookies)
        return found

    def put(self, cookies: str, found: FoundUser) -> None:
        """Remember the user of `cookies`."""
        self._forget(cookies)
        self._found[cookies] = found
        self._chars += len(cookies)
        while len(self._found) > self._max_remembered or self._chars > _MAX_CHARS:
            self._forget(next(iter(self._found)))

    def clear(self) -> None:
        """Forget all users."""
        self._found.clear()
        self._chars = 0

    def _forget(self, cookies: str) -> None:
        if self._found.pop(cookies, None) is not None:
            self._chars -= len(cookies)
