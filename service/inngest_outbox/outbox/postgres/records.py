"""The small records of an outbox: delivery, scopes, samples, acts that change no row.

The delivery record is one row that every process reads and saves. `revision` grows with every save.
A save keeps `paused_by`, which only an operator changes; a pause keeps every other field. The
database stores instants; callers get and give seconds from now.

`scope_revision` grows when any process saves a scope: the save raises one counter in the same
statement, which the others read every second.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Self

import msgspec

from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.audit import Deed, ids_text, new_act
from inngest_outbox.outbox.figures import KEPT_MS, Sample
from inngest_outbox.outbox.model import DeliveryRecord
from inngest_outbox.outbox.postgres.database.pool import PostgresPool
from inngest_outbox.supervisor import Supervisor
from inngest_outbox.untyped_json import decode_untyped_object

_POLL_SECONDS = 1.0
_NO_ACT = dict.fromkeys(("act", "actor", "action", "detail", "ids"))


class PostgresDelivery:
    """Loads and saves the delivery record."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def load(self) -> DeliveryRecord:
        """As the port says."""
        [row] = await self._pool.run("LOAD_DELIVERY")
        return DeliveryRecord(*row)

    async def save(self, record: DeliveryRecord) -> DeliveryRecord:
        """As the port says."""
        seconds = max(0.0, record.reopens_in_seconds)
        given = {**msgspec.structs.asdict(record), "reopens_in_seconds": seconds}
        [row] = await self._pool.run("SAVE_DELIVERY", given)
        return DeliveryRecord(*row)

    async def set_paused(
        self, *, paused: bool, actor: str, ask_now: bool = False, reason: str = ""
    ) -> DeliveryRecord:
        """Pause or resume delivery, and with `ask_now` end a wait; returns the stored record."""
        act = audited("pause" if paused else "resume", actor=actor, detail=reason)
        paused_by = actor if paused else None
        await self._pool.run("SET_PAUSED", {**act, "paused_by": paused_by, "ask_now": ask_now})
        return await self.load()


class PostgresScopes:
    """Loads and saves the values of scopes; an async context manager."""

    def __init__(self, pool: PostgresPool, supervisor: Supervisor) -> None:
        self.scope_revision = 0
        self._stored_revision = 0
        self._returns = pool.returns
        self._pool = pool
        self._supervisor = supervisor

    async def __aenter__(self) -> Self:
        await self._read()
        self._supervisor.watch("outbox-scopes", self._keep_reading)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._supervisor.stop("outbox-scopes")

    async def load_scope(self, scope: str, scope_id: str) -> dict[str, object] | None:
        """As the port says."""
        rows = await self._pool.run("LOAD_SCOPE", {"scope": scope, "scope_id": scope_id})
        return decode_untyped_object(rows[0][0]) if rows else None

    async def save_scope(self, scope: str, scope_id: str, value: dict[str, object]) -> None:
        """As the port says."""
        await self._save(scope, {scope_id: value}, _NO_ACT)

    async def save_audited(
        self, scope: str, values: Mapping[str, dict[str, object]], deed: Deed
    ) -> None:
        """As the port says."""
        act = audited(deed.action, actor=deed.actor, detail=deed.detail)
        await self._save(scope, values, act)

    async def refuse_appends(self, names: Collection[str]) -> None:
        """Have `outbox.append` refuse the events of these names, and of no others.

        Raises OutboxUnavailableError.
        """
        await self._pool.run("ENCRYPTED_NAMES", {"names": sorted(names)})

    async def _save(
        self, scope: str, values: Mapping[str, object], act: Mapping[str, str | None]
    ) -> None:
        texts = [msgspec.json.encode(one).decode() for one in values.values()]
        given = {"scope": scope, "scope_ids": list(values), "settings": texts, **act}
        [(revision,)] = await self._pool.run("SAVE_SCOPES", given)
        self._note(int(revision))

    async def _read(self) -> None:
        with contextlib.suppress(OutboxUnavailableError):
            [(revision,)] = await self._pool.run("READ_REVISION")
            self._note(int(revision))

    def _note(self, revision: int) -> None:
        """Raise `scope_revision` when the stored revision has changed, or may have begun again."""
        if self._returns != self._pool.returns:
            self._returns, self._stored_revision = self._pool.returns, revision - 1
        self.scope_revision += max(0, revision - self._stored_revision)
        self._stored_revision = max(self._stored_revision, revision)

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            await self._read()


class PostgresSamples:
    """The samples of the outbox: every process offers one of a minute, the first one counts."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def add(self, sample: Sample) -> None:
        """As the port says."""
        given = {**msgspec.structs.asdict(sample), "oldest_ms": sample.at_ms - KEPT_MS}
        await self._pool.run("ADD_SAMPLE", given)

    async def between(self, from_ms: int, until_ms: int) -> list[Sample]:
        """As the port says."""
        rows = await self._pool.ask("SAMPLES", {"from_ms": from_ms, "until_ms": until_ms})
        return [Sample(*row) for row in rows]


class PostgresTrail:
    """Acts that change no row."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def record(
        self, action: str, *, actor: str, detail: str, event_id: str | None = None
    ) -> None:
        """As the port says."""
        ids = [event_id] if event_id else []
        given = audited(action, actor=actor, detail=detail, event_ids=ids)
        await self._pool.run("ADD_ACT", given)


def audited(
    action: str, *, actor: str, detail: str, event_ids: Sequence[str] = ()
) -> dict[str, str]:
    """The values of a new act."""
    ids = ids_text(event_ids)
    act = new_act(detail).id
    return {"act": act, "actor": actor, "action": action, "detail": detail, "ids": ids}
