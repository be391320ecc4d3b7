"""Rows that Inngest has answered, until Inngest is known to hold their events."""

from __future__ import annotations

import contextlib
import secrets
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Self

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.event import decode_meta
from inngest_outbox.outbox.inngest_id import PREFIX_BYTES, InngestIds
from inngest_outbox.outbox.model import SentEntry
from inngest_outbox.outbox.postgres.database.pool import PostgresPool
from inngest_outbox.outbox.postgres.queue import Wakeup
from inngest_outbox.outbox.storable import storable

_TURN_SECONDS = 10.0


class PostgresConfirmations:
    """Shows sent rows, confirms them or sends them again; an async context manager.

    `serves` says that its process stores events.
    """

    def __init__(self, pool: PostgresPool, wakeup: Wakeup, *, serves: bool) -> None:
        self._pool = pool
        self._wakeup = wakeup
        self._serves = serves
        self._ids: InngestIds | None = None
        self._asker = uuid.uuid4().hex
        self._asks = False

    async def __aenter__(self) -> Self:
        await self.read_ids()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._asks:
            with contextlib.suppress(OutboxUnavailableError):
                await self.stop_asking()

    @property
    def inngest_ids(self) -> InngestIds:
        """Derives the ULIDs of this outbox's rows."""
        if self._ids is None:
            raise RuntimeError("the outbox is not open")
        return self._ids

    async def read_ids(self) -> None:
        """Read the prefixes of ULIDs. Safe to repeat.

        When served, numbers that this server, timeline and database will give get a prefix of their
        own first: a restored outbox gives no ULID again.
        """
        if self._serves:
            given = {"prefix": secrets.token_bytes(PREFIX_BYTES)}
            await self._pool.run("ADD_PREFIX", given)
        self._ids = ids_of(await self._pool.run("PREFIXES"))

    async def sent(self, limit: int, after_seq: int = 0) -> Sequence[SentEntry]:
        """As the port says."""
        rows = await self._pool.ask("SENT", {"limit": limit, "after": after_seq}, often=True)
        return [SentEntry(*[*row[:5], decode_meta(row[5])]) for row in rows]

    async def count_sent(self) -> int:
        """As the port says."""
        [(sent,)] = await self._pool.run("COUNT_SENT")
        return int(sent)

    async def may_ask(self) -> bool:
        """As the port says; the turn lasts for 10 s."""
        given = {"turn": "confirmation", "holder": self._asker, "seconds": _TURN_SECONDS}
        [(self._asks,)] = await self._pool.run("TAKE_TURN", given)
        return self._asks

    async def stop_asking(self) -> None:
        """As the port says."""
        self._asks = False
        await self._pool.run("END_TURN", {"turn": "confirmation", "holder": self._asker})

    async def confirm(self, seqs: Sequence[int]) -> int:
        """As the port says."""
        [(confirmed,)] = await self._pool.run("CONFIRM", {"seqs": list(seqs)})
        return int(confirmed)

    async def resend(self, seqs: Sequence[int], note: str) -> int:
        """As the port says."""
        given = {"seqs": list(seqs), "note": storable(note)}
        [(pending,)] = await self._pool.run("RESEND", given)
        if pending:
            self._wakeup.rows_are_due()
        return int(pending)


def ids_of(rows: Iterable[Sequence[Any]]) -> InngestIds:
    """The ids that follow from PREFIXES."""
    (since, prefix), *earlier = [(from_seq, bytes(one)) for from_seq, one in rows]
    return InngestIds(prefix, since, tuple(earlier))
