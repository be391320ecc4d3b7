"""One kind of event that may be posted."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import RefusedError
from service.event_types.body_schema import BodySchema
from service.event_types.senders import SIGNED_IN, Senders
from service.identity.user import User

Body = Mapping[str, Any]


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

    >>> operation_id("documents/aws.index")
    'postDocumentsAwsIndex'
    """
    words = re.findall(r"[A-Za-z0-9]+", event_name)
    return "post" + "".join(word[0].upper() + word[1:] for word in words)
