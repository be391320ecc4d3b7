"""The journal as people see it: its state, what is in the bucket, and bringing events back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from inngest_outbox.journal.bucket import JournalBucket
from inngest_outbox.journal.comparison import StartView, views
from inngest_outbox.outbox.sqlite.file.journalled import Known, Restored


class JournalState(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The state of the journal for people.

    `state` is `ok`, `away` or `unread`. `missing` events are not in the bucket yet. `restored` are
    those that came back since the start, `may_run_twice` of them are older than Inngest remembers.
    `refused` are sentences about events in the bucket that were not brought back.
    """

    bucket: str
    state: str
    reason: str | None
    missing: int
    objects: int
    restored: int
    restored_dead: int
    may_run_twice: int
    refused: tuple[str, ...]


class JournalLook(Protocol):
    """The journal as people look at it."""

    async def starts(self) -> list[StartView]:
        """The content of the bucket, by the starts that put it. Raises StorageUnavailableError."""
        ...


class JournalReader:
    """The content of `bucket` for a file that no process serves; `known` are its starts."""

    def __init__(self, bucket: JournalBucket, known: Mapping[str, Known]) -> None:
        self._bucket = bucket
        self._known = known

    async def starts(self) -> list[StartView]:
        """The content of the bucket, by the starts that put it. Raises StorageUnavailableError."""
        return await views(self._bucket, self._known)


class JournalDesk(JournalLook, Protocol):
    """The journal for people."""

    @property
    def state(self) -> JournalState:
        """Its state, from memory."""
        ...

    async def restore(self, ids: Sequence[str]) -> Restored:
        """Bring back what the file has never had of these starts, whoever they are.

        Safe to repeat. Raises OutboxUnavailableError and StorageUnavailableError.
        """
        ...
