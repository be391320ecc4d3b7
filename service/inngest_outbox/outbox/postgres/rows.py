"""Finds rows for people. Reads take no lock that a writer waits for.

An event that is still in the inbox has no seq yet. For people it has a number above all seqs, so
that it is the newest; its ULID is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from inngest_outbox.outbox.event import decode_meta
from inngest_outbox.outbox.inngest_id import InngestIds
from inngest_outbox.outbox.model import MAX_NOTES, Filter, Note, Reach, Row, State
from inngest_outbox.outbox.postgres.database.pool import PostgresPool
from inngest_outbox.outbox.postgres.inbox_row import InboxRow, rest_of
from inngest_outbox.outbox.storable import storable

INBOX_SEQ = 1 << 52  # ARRIVED has this number too


class PostgresRows:
    """Reads rows through the pool. Every method raises OutboxUnavailableError."""

    def __init__(self, pool: PostgresPool, ids: Callable[[], InngestIds]) -> None:
        self._pool = pool
        self._ids = ids

    async def find(self, event_id: str) -> Row | None:
        """The row of one event, None when there is none."""
        rows = await self.find_all(Filter(ids=(event_id,)))
        return rows[0] if rows else None

    async def find_all(self, wanted: Filter) -> list[Row]:
        """The matching rows, newest first."""
        if wanted == Filter(ids=wanted.ids, limit=wanted.limit) and wanted.ids is not None:
            return await self._by_ids(wanted)
        given = filter_values(wanted)
        arrived = await self._arrived(wanted, given)
        found = [self._row(row) for row in await self._pool.ask(f"ROWS {source_of(wanted)}", given)]
        return _newest(arrived, found)[: wanted.limit]

    async def count(self, wanted: Filter) -> int:
        """The number of matching rows, at most the limit."""
        given = filter_values(wanted)
        arrived = await self._arrived(wanted, given)
        [(found,)] = await self._pool.ask(f"COUNT {source_of(wanted)}", given)
        return min(int(found) + len(arrived), wanted.limit)

    async def reach(
        self,
        state: State | None,
        window: int,
        before_seq: int | None = None,
        owner: str | None = None,
    ) -> Reach | None:
        """As the port Positions says."""
        given = {"skipped": window - 1, "before": before_seq, "in_owner": owner}
        source = "events" if state is None or owner is not None else state.value
        statement = "REACH_PENDING" if source == "pending" else f"REACH {source}"
        rows = await self._pool.ask(statement, given)
        return Reach(*rows[0]) if rows else None

    async def seq_at(self, at_ms: int) -> int:
        """As the port Positions says."""
        [(seq,)] = await self._pool.ask("SEQ_AT", {"at_ms": at_ms})
        return int(seq)

    async def arrived_body(self, event_id: str) -> bytes | None:
        """The source of an event in the inbox, None when it is not there."""
        given = filter_values(Filter(ids=(event_id,)))
        for row in await self._pool.ask("ARRIVED", given):
            accepted, number, data, rest, key = row[4], *row[6:]
            ours = InboxRow(
                "", number, accepted, row[0], row[1], row[2], row[3], key, data, rest_of(rest)
            )
            return ours.body
        return None

    async def _by_ids(self, wanted: Filter) -> list[Row]:
        """The rows with these ids, which are asked often."""
        given = filter_values(wanted)
        found = await self._read_ids(given)
        if wanted.ids and len(found) < len(set(wanted.ids)):
            arrived = await self._arrived(wanted, given, often=True)
            found = _newest(arrived, await self._read_ids(given))
        return found[: wanted.limit]

    async def _read_ids(self, given: dict[str, Any]) -> list[Row]:
        ids = {"ids": given["ids"], "limit": given["limit"]}
        rows = await self._pool.ask("ROWS_BY_IDS", ids, often=True)
        return [self._row(row) for row in rows]

    async def _arrived(
        self, wanted: Filter, given: dict[str, Any], *, often: bool = False
    ) -> list[Row]:
        if wanted.of_reason or wanted.state not in (None, State.PENDING):
            return []
        return [_arrived_row(row) for row in await self._pool.ask("ARRIVED", given, often=often)]

    def _row(self, row: tuple[Any, ...]) -> Row:
        *fields, noted_at, notes, payload_bytes, seq, meta_text = row
        state, accepted_at_ms, meta = State(fields[4]), fields[8], decode_meta(meta_text)
        fields[4] = state
        for place in (11, 12):
            fields[place] = None if fields[place] is None else max(0.0, fields[place])
        if state is State.PENDING and fields[11] is None:
            fields[11] = 0.0
        pairs = zip(noted_at or (), notes or (), strict=True)
        history = tuple([Note(at, note) for at, note in pairs][-MAX_NOTES:])
        ulid = self._ids().ulid(seq, accepted_at_ms, meta)
        return Row(*[*fields, history, payload_bytes, ulid, seq, meta])


def _newest(arrived: list[Row], found: list[Row]) -> list[Row]:
    """The rows of both. The inbox is read first, as an event may leave it between the reads."""
    known = {row.id for row in found}
    return [*(row for row in arrived if row.id not in known), *found]


def _arrived_row(row: tuple[Any, ...]) -> Row:
    event_id, name, owner, user_id, accepted_at_ms, size, number, _, rest, _ = row
    return Row(
        event_id,
        name,
        owner,
        user_id,
        State.PENDING,
        attempts=0,
        sends=0,
        isolated=False,
        accepted_at_ms=accepted_at_ms,
        first_sent_at_ms=None,
        settled_at_ms=None,
        due_in_seconds=0.0,
        lease_in_seconds=None,
        reason=None,
        detail=None,
        history=(),
        payload_bytes=size,
        seq=INBOX_SEQ + number,
        meta=rest_of(rest).event_meta,
    )


def filter_values(wanted: Filter) -> dict[str, Any]:
    """The parameters of a filter. No stored text has a NUL."""
    state = _state(wanted)
    prefix = wanted.id_prefix and storable(wanted.id_prefix)
    ids = None if wanted.ids is None else [storable(one) for one in wanted.ids]
    of_owner = source_of(wanted) == "events" and wanted.owner is not None
    alone = ids is None and not of_owner and state is None
    return {
        **msgspec.structs.asdict(wanted),
        "in_owner": wanted.owner if of_owner and wanted.alias is None else None,
        "in_prefix": prefix if alone else None,
        "ids": ids,
        "alias": wanted.alias and storable(wanted.alias),
        "state": state,
        "user_part": _part(wanted.user_part),
        "name_part": _part(wanted.name_part),
        "reason_part": _part(wanted.reason_part),
        "payload_part": wanted.payload_part.encode() if wanted.payload_part else None,
        "prefix": prefix,
        "prefix_end": f"{prefix}\U0010ffff",
    }


def _part(text: str | None) -> str | None:
    return storable(text) if text else None


def source_of(wanted: Filter) -> str:
    """Where the search begins: at the events, or at the places of a state."""
    state = _state(wanted)
    is_of_owner = wanted.owner is not None and wanted.after_seq is not None
    if wanted.ids is not None or wanted.alias is not None or state is None or is_of_owner:
        return "events"
    # Within a range of seq, the lanes of pending rows are read in its order.
    return "ready" if state is State.PENDING and wanted.after_seq is not None else state.value


def _state(wanted: Filter) -> State | None:
    """Only dead rows have a reason."""
    return State.DEAD if wanted.of_reason and wanted.state is None else wanted.state
