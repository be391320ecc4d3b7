"""One store as a move sees it: the values and the ports."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import msgspec

from inngest_outbox.outbox.audit import AuditRow
from inngest_outbox.outbox.event import Meta

_encode = msgspec.json.Encoder().encode

Note = tuple[int, str]
Scope = tuple[str, str, str]


class TransferRow(msgspec.Struct, frozen=True, gc=False):
    """An event as a move keeps it; `payload_sha256` stands for its bytes.

    `state` is pending, sent, delivered or dead; `seq` orders events in their own store only.
    `meta` has the event's ULID as the moved one, and a due time only while it delays the event.
    """

    seq: int
    id: str
    name: str
    owner: str
    user_id: str
    accepted_at_ms: int
    state: str
    attempts: int
    sends: int
    isolated: bool
    first_sent_at_ms: int | None
    settled_at_ms: int | None
    reason: str | None
    detail: str | None
    history: tuple[Note, ...]
    key: str | None
    key_digest: str | None
    payload_sha256: str
    meta: Meta

    def digest(self) -> bytes:
        """The hash of everything but `seq` and the due time, which means nothing once past."""
        undelayed = msgspec.structs.replace(self.meta, due_at_ms=0)
        kept = msgspec.structs.replace(self, seq=0, meta=undelayed)
        return hashlib.sha256(_encode(kept)).digest()


class Metadata(NamedTuple):
    """The values of scopes, operator actions but moves (oldest first), and who paused delivery."""

    scopes: Sequence[Scope]
    audit: Sequence[AuditRow]
    paused_by: str | None
    pause_reason: str


class TransferEvents(Protocol):
    """The events of one store as a move sees them."""

    def page(self, after_seq: int, limit: int) -> list[TransferRow]:
        """Events in their order, without their bytes."""
        ...

    def payloads(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        """The bytes of these events."""
        ...

    def write(self, events: Sequence[TransferRow], payloads: Mapping[str, bytes]) -> None:
        """Add these events, which are not here, in their order; atomically."""
        ...

    def clear(self) -> None:
        """Remove all events."""
        ...


class TransferMetadata(Protocol):
    """The records of one store beside its events, as a move sees them."""

    def read(self) -> Metadata:
        """All of it."""
        ...

    def write(self, metadata: Metadata) -> None:
        """Replace all of it, atomically."""
        ...

    def moves(self) -> list[str]:
        """The details of the moves into this store, oldest first."""
        ...

    def note_move(self, actor: str, detail: str) -> None:
        """Add a move to the operator actions."""
        ...


class TransferStore(Protocol):
    """One store as a move sees it. Nothing serves a target while it is written."""

    @property
    def events(self) -> TransferEvents:
        """Its events."""
        ...

    @property
    def metadata(self) -> TransferMetadata:
        """Its records beside them."""
        ...

    def unserved(self) -> AbstractContextManager[bool]:
        """Keep services from using this store while inside.

        False when one is using it already.
        """
        ...
