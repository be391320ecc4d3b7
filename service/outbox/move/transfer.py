"""One store as a move sees it: the values and the ports."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, Self

import msgspec

from service.outbox.audit import AuditRow

_encode = msgspec.json.Encoder().encode

MOST_NAMED = 1000

Note = tuple[int, str]
Scope = tuple[str, str, str]


class TransferRow(msgspec.Struct, frozen=True, gc=False):
    """What a move keeps of an event; `payload_sha256` stands for its bytes.

    `state` is pending, sent, delivered or dead; `seq` orders events in their own store only. The
    sender of a pending event holds it until `due_at_ms`, wall time; 0 is at once.
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
    trace: str | None
    key: str | None
    key_digest: str | None
    payload_sha256: str
    inngest_id: str
    wire_id: str | None
    environment: str | None
    due_at_ms: int

    def digest(self) -> bytes:
        """The hash of everything but `seq` and `due_at_ms`, which means nothing once it is past."""
        return hashlib.sha256(_encode(msgspec.structs.astuple(self)[1:-1])).digest()


class MissingRow(msgspec.Struct, frozen=True, gc=False):
    """A row of which a part is gone: where it is, or `unknown` where its event is all there is."""

    seq: int
    state: str


class Missing(msgspec.Struct, frozen=True, gc=False):
    """Rows that can't be moved: how many, and the first of them by their numbers."""

    rows: int
    first: tuple[MissingRow, ...]

    @classmethod
    def of(cls, found: Iterable[tuple[int, str]]) -> Self:
        """From the number and state of each; names at most 1,000."""
        rows = iter(found)
        first = tuple(MissingRow(*row) for row in itertools.islice(rows, MOST_NAMED))
        return cls(len(first) + sum(1 for _ in rows), first)


class Metadata(NamedTuple):
    """Stored settings, operator actions but moves (oldest first), and who paused delivery."""

    scopes: Sequence[Scope]
    audit: Sequence[AuditRow]
    paused_by: str | None
    pause_reason: str


class TransferEvents(Protocol):
    """The events of one store as a move sees them."""

    def page(self, after_seq: int, limit: int) -> list[TransferRow]:
        """Events in their order, without their bytes."""
        ...

    def by_ids(self, ids: Sequence[str]) -> list[TransferRow]:
        """The events with these ids, those that are there."""
        ...

    def payloads(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        """The bytes of these events."""
        ...

    def missing(self) -> Missing:
        """The rows that `page` leaves out: only a damaged outbox has them."""
        ...

    def write(self, events: Sequence[TransferRow], payloads: Mapping[str, bytes]) -> None:
        """Make these events what they are here, atomically; new ones in their order."""
        ...

    def remove(self, ids: Sequence[str]) -> None:
        """Remove these events, atomically."""
        ...


class TransferMetadata(Protocol):
    """What one store holds beside its events, as a move sees it."""

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
        """What it holds beside them."""
        ...

    def unserved(self) -> AbstractContextManager[bool]:
        """Keep services from using this store while inside.

        False when one is using it already.
        """
        ...
