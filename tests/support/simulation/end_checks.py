"""What must hold at the end of a history, when all has been well for a while."""

from __future__ import annotations

from collections.abc import Mapping

from inngest_outbox.outbox.model import Filter, Row, State
from inngest_outbox.outbox.sqlite.store import SqliteOutbox
from tests.support.simulation.clients import HEALTHY, HistoryError, Told
from tests.support.simulation.simulated_inngest import SimulatedInngest

_ALL = 1_000_000


async def check_end(outbox: SqliteOutbox, told: Told, inngest: SimulatedInngest) -> None:
    """Everything that was answered has ended where it belongs. Raises HistoryError."""
    if outbox.undelivered:
        raise HistoryError(f"{outbox.undelivered} rows count as undelivered, none is")
    rows = {row.id: row for row in await outbox.inspector.rows(Filter(limit=_ALL))}
    held = set(inngest.stored.values())
    for event_id, kind in told.answered.items():
        row, is_held = rows.get(event_id), event_id in held
        if row is not None:
            _check_row(row, kind, is_held=is_held, is_gone=event_id in told.gone)
        elif event_id not in told.discarded and not is_held:
            raise HistoryError(f"answered and gone: {event_id} ({kind})")
    _check_arrays(rows, told, held)


def check_runs(inngest: SimulatedInngest) -> None:
    """An event came in one request at a time, and ran a function once. Raises HistoryError."""
    if twice := inngest.sent_beside_itself:
        raise HistoryError(f"{len(twice)} events were under way twice at once, as {min(twice)}")
    for event_id, runs in inngest.runs.items():
        if len(runs) > 1:
            raise HistoryError(f"an event ran {len(runs)} times: {event_id}")


def _check_row(row: Row, kind: str, *, is_held: bool, is_gone: bool) -> None:
    is_good = kind == HEALTHY
    if row.state is not (State.DELIVERED if is_good else State.DEAD):
        raise HistoryError(f"an event of the kind {kind} is {row.state}: {row}")
    if is_good and not is_held:
        raise HistoryError(f"delivered, and Inngest does not hold it: {row}")
    if is_good and row.attempts > 1:
        raise HistoryError(f"a good event lost attempts: {row}")
    if is_gone:
        raise HistoryError(f"discarded and there: {row}")


def _check_arrays(rows: Mapping[str, Row], told: Told, held: set[str]) -> None:
    """An array is stored whole or not at all; what Inngest holds was stored."""
    for ids in told.arrays:
        kept = {event_id for event_id in ids if event_id not in told.discarded}
        stored = {event_id for event_id in kept if event_id in held or event_id in rows}
        if stored and stored != kept:
            raise HistoryError(f"half an array is stored: {len(stored)} of {len(kept)}")
