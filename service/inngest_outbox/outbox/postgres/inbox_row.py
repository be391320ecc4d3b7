"""A row of the inbox: what an application appended in SQL, and the event that it becomes."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import msgspec

from inngest_outbox.identity.user import User
from inngest_outbox.outbox.event import NO_META, Event, Meta
from inngest_outbox.outbox.keys import IdempotencyKey


class BadRowError(ValueError):
    """The event of a row can't be sent. The message holds nothing of it."""


class ReadEvent(Protocol):
    """Reads an event as the doors of the service read it."""

    def __call__(self, body: bytes, user: User, now_ms: int, *, meta: Meta) -> Event:
        """The event in `body`, an object. Raises ValueError for one that Inngest would refuse."""
        ...


class Rest(msgspec.Struct, frozen=True):
    """The arguments that few appends give. `meta` is the field of the payload."""

    user_email: str | None = None
    user_name: str | None = None
    trace: str | None = None
    id: str | None = None
    ts: int | None = None
    v: str | None = "1"
    environment: str | None = None
    send_at: int | None = None
    user_fields: dict[str, msgspec.Raw] | None = None
    meta: msgspec.Raw = msgspec.Raw()

    @property
    def event_meta(self) -> Meta:
        """The event's rare attributes but the id on the wire."""
        meta = Meta(None, self.environment, self.send_at or 0, self.trace)
        return NO_META if meta == NO_META else meta


class InboxRow(msgspec.Struct, frozen=True):
    """One append. `xid` and `no` name it."""

    xid: str
    no: int
    accepted_at_ms: int
    event_id: str
    name: str
    owner: str
    user_id: str | None
    key: str | None
    data: str
    rest: Rest

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> InboxRow:
        """From the columns of INBOX_PAGE."""
        return cls(*[*row[:9], rest_of(row[9])])

    @property
    def body(self) -> bytes:
        """The event as a client would post it."""
        return self.body_as(self.event_id)

    def body_as(self, event_id: str) -> bytes:
        """The event as a client would post it, with this id unless its sender chose one."""
        rest = self.rest
        user = {
            **(rest.user_fields or {}),
            "id": self.user_id,
            "email": rest.user_email,
            "name": rest.user_name,
        }
        fields: dict[str, object] = {
            "name": self.name,
            "ts": rest.ts or self.accepted_at_ms,
            "data": msgspec.Raw(self.data.encode()),
            "user": user,
        }
        meta = rest.meta if bytes(rest.meta) not in (b"", b"null") else None
        given = {"id": rest.id or event_id, "v": rest.v, "meta": meta}
        fields |= {name: value for name, value in given.items() if value is not None}
        return msgspec.json.encode(fields)

    @property
    def idempotency_key(self) -> IdempotencyKey | None:
        """Its key; an id of the sender's is the key that the doors give it."""
        rest = self.rest
        if rest.id:
            return IdempotencyKey.of_id(rest.id, self.name, rest.environment)
        if self.key is None:
            return None
        said = " ".join(filter(None, (rest.environment, self.name, self.data)))
        return IdempotencyKey(self.key, hashlib.sha256(said.encode()).digest())

    def event(self, read: ReadEvent) -> Event:
        """The event. Raises BadRowError."""
        issuer = self.owner.partition(" ")[0]
        user = User(issuer, self.user_id or "", self.rest.user_email, self.rest.user_name)
        try:
            event = read(self.body, user, self.accepted_at_ms, meta=self.rest.event_meta)
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise BadRowError(str(error)) from error
        meta = event.meta
        if due := self.rest.send_at:
            meta = msgspec.structs.replace(meta, due_at_ms=due)
        return msgspec.structs.replace(event, id=self.event_id, owner=self.owner, meta=meta)


def rest_of(text: str | None) -> Rest:
    """The rare arguments of a row, from their column."""
    return msgspec.json.decode(text, type=Rest) if text else Rest()
