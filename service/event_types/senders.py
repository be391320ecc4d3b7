"""Who may post an event type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service.errors import RefusedError, SenderNotAllowedError
from service.identity.user import User

SESSION = "session"
KEY_ISSUER = "key"


class Senders:
    """The users that a declaration names by `words`.

    A word is `session` for everyone who is signed in, `key` for every event key, an issuer for its
    users, or an owner such as `key nightly`.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._words = frozenset(words)
        self._all_sessions = SESSION in self._words

    @property
    def refusals(self) -> Sequence[type[RefusedError]]:
        """What `check` raises for somebody who is signed in."""
        return () if self._all_sessions else (SenderNotAllowedError,)

    def check(self, user: User) -> None:
        """Raise SenderNotAllowedError unless `user` is one of them."""
        if self._all_sessions and user.issuer != KEY_ISSUER:
            return
        if self._words.isdisjoint((user.issuer, user.owner)):
            raise SenderNotAllowedError


SIGNED_IN = Senders((SESSION,))
