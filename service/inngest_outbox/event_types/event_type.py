"""One kind of event that may be posted, and the senders that may post it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inngest_outbox.errors import RefusedError, SenderNotAllowedError
from inngest_outbox.event_types.body_schema import BodySchema
from inngest_outbox.identity.user import EVENT_KEY_ISSUER, User

Body = Mapping[str, Any]
SESSION = "session"


class Senders:
    """The people and machines that a declaration names by `words`.

    A word is `session` for everyone who is signed in, `key` for every event key, an issuer for its
    users, or an owner such as `key nightly`. `people` and `machines` are true where one may post.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class EventType:
    """One kind of event that may be posted to a path of its own.

    `data` makes the event's data, a JSON object, from a body of the schema and its sender.
    `require` raises while this type can't be accepted at all, for example without its
    configuration. `check_first` checks a body before its schema does, for error codes of its own.
    `refusals` are the errors that `data`, `require` and `check_first` raise.
    """

    name: str
    path: str
    body: BodySchema
    data: Callable[[Body, User], Awaitable[Mapping[str, Any]]]
    summary: str
    senders: Senders = SIGNED_IN
    require: Callable[[], None] = lambda: None
    check_first: Callable[[Body], None] = lambda _: None
    refusals: Sequence[type[RefusedError]] = ()


def operation_id(event_name: str) -> str:
    """The name of an event's operation in the API's description.

    >>> operation_id("documents/aws.indexAgain")
    'postDocumentsAwsIndexAgain'
    """
    words = re.findall(r"[A-Za-z0-9]+", event_name)
    return "post" + "".join(word[0].upper() + word[1:] for word in words)
