"""The senders that may post an event type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service.errors import RefusedError, SenderNotAllowedError
from service.identity.user import EVENT_KEY_ISSUER, User

SESSION = "session"


class Senders:
    """The people and machines that a declaration names by `words`.

    A word is `session` for everyone who is signed in, `key` for every event key, an issuer for its
    users, or an owner such as `key nightly`. `people` and `machines` say whether any can be one.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._words = frozenset(words)
        self._all_people = SESSION in self._words
        machines = {word for word in self._words if word.partition(" ")[0] == EVENT_KEY_ISSUER}
        self.machines = bool(machines)
        self.people = bool(self._words - machines)
        self.refusals: Sequence[type[RefusedError]] = ()
        if not self._words.issuperset(_everyone(people=self.people, machines=self.machines)):
            self.refusals = (SenderNotAllowedError,)

    def check(self, user: User) -> None:
        """Raise SenderNotAllowedError unless `user` is one of them."""
        if self._all_people and user.issuer != EVENT_KEY_ISSUER:
            return
        if self._words.isdisjoint((user.issuer, user.owner)):
            raise SenderNotAllowedError


def _everyone(*, people: bool, machines: bool) -> Iterable[str]:
    """The words that let everybody post."""
    if people:
        yield SESSION
    if machines:
        yield EVENT_KEY_ISSUER


SIGNED_IN = Senders((SESSION,))
