"""The small records of an SQLite outbox: delivery, scopes, samples and the audit."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from inngest_outbox.outbox.audit import Act, Deed, ErasedRecords, erased_words, ids_text, new_act
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.figures import KEPT_MS, Sample
from inngest_outbox.outbox.model import DeliveryRecord
from inngest_outbox.outbox.sqlite.file.connection import SQL, Reads, SqliteReader
from inngest_outbox.outbox.sqlite.state import CachedState
from inngest_outbox.outbox.sqlite.writer import SqliteWriter
from inngest_outbox.untyped_json import decode_untyped_object


class SqliteDelivery:
    """Loads and saves the delivery record. Only the process that holds the outbox writes it."""

    def __init__(self, writer: SqliteWriter, state: CachedState) -> None:
        self._writer = writer
        self._state = state

    async def load(self) -> DeliveryRecord:
        """The record as last saved. Raises OutboxUnavailableError before the file was read."""
        return self._state.known_record()

    async def save(self, record: DeliveryRecord) -> DeliveryRecord:
        """Save the breaker's fields and keep `paused_by`; returns the stored record."""

        def run(connection: sqlite3.Connection) -> DeliveryRecord:
            reopens_at_ms = wall_now_ms() + int(record.reopens_in_seconds * 1000)
            values = {**msgspec.structs.asdict(record), "reopens_at_ms": reopens_at_ms}
            connection.execute(SQL["SAVE_DELIVERY"], values)
            return read_delivery(connection)

        return await self._writer.run(run, self._remember)

    async def set_paused(
        self, *, paused: bool, actor: str, ask_now: bool = False, reason: str = ""
    ) -> DeliveryRecord:
        """Pause or resume delivery, and with `ask_now` end a wait; returns the stored record."""

        def run(connection: sqlite3.Connection) -> DeliveryRecord:
            values = {"paused_by": actor if paused else None, "ask_now": ask_now}
            values["reason"] = reason if paused else ""
            connection.execute(SQL["SET_PAUSED"], values)
            write_audit(connection, actor, "pause" if paused else "resume", new_act(reason))
            return read_delivery(connection)

        return await self._writer.run(run, self._remember)

    def _remember(self, record: DeliveryRecord) -> None:
        self._state.record = record


def read_delivery(connection: sqlite3.Connection) -> DeliveryRecord:
    """The record as it stands in the file."""
    [row] = connection.execute(SQL["DELIVERY"], {"now": wall_now_ms()}).fetchall()
    return DeliveryRecord(*row)


class SqliteScopes:
    """The values of scopes. One process writes them, so their revision is counted in memory."""

    def __init__(self, reader: SqliteReader, writer: SqliteWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.scope_revision = 0

    async def load_scope(self, scope: str, scope_id: str) -> dict[str, object] | None:
        """As the port says."""
        return await self._reader.run_soon(_load, {"scope": scope, "scope_id": scope_id})

    async def save_scope(self, scope: str, scope_id: str, value: dict[str, object]) -> None:
        """As the port says."""
        given = [_given(scope, scope_id, value)]
        await self._writer.run(lambda connection: _save(connection, given), self._saved)

    async def save_audited(
        self, scope: str, values: Mapping[str, dict[str, object]], deed: Deed
    ) -> None:
        """As the port says."""
        given = [_given(scope, scope_id, value) for scope_id, value in values.items()]

        def run(connection: sqlite3.Connection) -> None:
            write_audit(connection, deed.actor, deed.action, new_act(deed.detail))
            _save(connection, given)

        await self._writer.run(run, self._saved)

    async def erase(self, owner: str, *, actor: str) -> ErasedRecords:
        """Remove the settings of `owner`, and its name from audit and samples, in one commit."""

        def run(connection: sqlite3.Connection) -> ErasedRecords:
            connection.create_function("erased", 2, erased_words)
            given = {"owner": owner, "user_id": owner.partition(" ")[2] or owner}
            removed = connection.execute(SQL["ERASE_SETTINGS"], given).rowcount
            named = connection.execute(SQL["ERASE_NAME"], given).rowcount
            connection.execute(SQL["ERASE_REASON"], given)
            write_audit(connection, actor, "erase", new_act("everything of one owner"))
            return ErasedRecords(removed, named)

        return await self._writer.run(run, self._saved)

    def _saved(self, _: object) -> None:
        self.scope_revision += 1


def _load(connection: sqlite3.Connection, values: dict[str, str]) -> dict[str, object] | None:
    rows = connection.execute(SQL["LOAD_SCOPE"], values).fetchall()
    return decode_untyped_object(rows[0][0]) if rows else None


def _save(connection: sqlite3.Connection, given: Sequence[dict[str, str]]) -> None:
    connection.executemany(SQL["SAVE_SCOPE"], given)


def _given(scope: str, scope_id: str, value: dict[str, object]) -> dict[str, str]:
    text = msgspec.json.encode(value).decode()
    return {"scope": scope, "scope_id": scope_id, "settings": text}


class SqliteSamples:
    """The samples: a row for each minute of the last days."""

    def __init__(self, reads: Reads, writer: SqliteWriter, state: CachedState) -> None:
        self._reads = reads
        self._writer = writer
        self._state = state

    async def add(self, sample: Sample) -> None:
        """Keep a sample unless its minute has one, and drop those of more than 7 days before.

        Keeps how long services have run, too.
        """

        def run(connection: sqlite3.Connection) -> None:
            connection.execute(SQL["ADD_SAMPLE"], msgspec.structs.asdict(sample))
            connection.execute(SQL["DROP_SAMPLES"], {"oldest_ms": sample.at_ms - KEPT_MS})
            self._state.keep_ages(connection)

        await self._writer.run(run)

    async def between(self, from_ms: int, until_ms: int) -> list[Sample]:
        """The samples of minutes that begin within these moments, oldest first."""
        return await self._reads.run(_between, {"from_ms": from_ms, "until_ms": until_ms})


def _between(connection: sqlite3.Connection, values: dict[str, int]) -> list[Sample]:
    return [Sample(*row) for row in connection.execute(SQL["SAMPLES"], values).fetchall()]


class SqliteTrail:
    """Acts of operators that change no row, in the audit."""

    def __init__(self, writer: SqliteWriter) -> None:
        self._writer = writer

    async def record(
        self, action: str, *, actor: str, detail: str, event_id: str | None = None
    ) -> None:
        """Add an act to the audit. Raises OutboxUnavailableError."""
        ids = [event_id] if event_id else []
        await self._writer.run(
            lambda connection: write_audit(connection, actor, action, new_act(detail), ids)
        )


def write_audit(
    connection: sqlite3.Connection, actor: str, action: str, act: Act, ids: Sequence[str] = ()
) -> None:
    """Add a change of these events to the audit, in the transaction of the change."""
    values = {"act": act.id, "at_ms": wall_now_ms(), "actor": actor, "action": action}
    connection.execute(
        SQL["ADD_AUDIT"], {**values, "detail": act.chosen, "ids": ids_text(list(ids))}
    )
