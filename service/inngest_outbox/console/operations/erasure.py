"""Erasing one owner: events with their payloads, settings, sessions, and the name in the audit.

The invariant: the certificate says only what is gone for good, and names what is out of reach.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from inngest_outbox.console.operations.actions import SignOuts
from inngest_outbox.console.operations.bulk import change_rows, find_all
from inngest_outbox.console.operations.search import Search
from inngest_outbox.outbox.audit import new_act
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.model import Filter, Row, State
from inngest_outbox.outbox.ports import Inspector, Positions, Repairs

_MOST = 1_000_000
_LOOK_SECONDS = 0.5
_WAITING = (State.PENDING, State.DELIVERING, State.SENT)
OUT_OF_REACH = ("backups", "events that Inngest has taken", "logs", "copies of the database")
UNTIL_VACUUM = (
    "pages of the database's tables until their next vacuum",
    "the database's write-ahead log and replicas until these drop it",
)


@dataclass(frozen=True, slots=True)
class ErasureParts:
    """The parts of an outbox that find an owner's records, remove them, and end the sessions.

    `remains` says where removed bytes may stay for a time.
    """

    inspector: Inspector
    positions: Positions
    repairs: Repairs
    sign_outs: SignOuts
    remains: Sequence[str] = ()


class Certificate(msgspec.Struct, frozen=True, rename="camel"):
    """The proof of an erasure. `events` counts the removed events by state.

    `left` events were still under way or came meanwhile. `out_of_reach` may hold copies.
    """

    at: int
    by: str
    events: dict[str, int]
    settings: int
    audit_rows: int
    left: int
    out_of_reach: Sequence[str] = OUT_OF_REACH


async def owned(parts: ErasureParts, owners: Sequence[str]) -> list[Row]:
    """The events of the owners that an erasure would remove."""
    search = Search(parts.inspector, parts.positions)
    found: list[Row] = []
    for owner in owners:
        found += await find_all(search, Filter(owner=owner, limit=_MOST), lambda *_: None)
    return found


async def erase(
    parts: ErasureParts,
    owners: Sequence[str],
    *,
    actor: str,
    after_delivery: bool,
    patience_seconds: float,
) -> Certificate:
    """Erase everything of `owners`. Safe to repeat.

    Events under way are waited for, at most `patience_seconds`; with `after_delivery` those that
    wait are delivered first. After that, it looks again only for rows that one look did not take.
    Raises OutboxUnavailableError: what was removed stays removed.
    """
    events: Counter[str] = Counter()
    await parts.sign_outs.sign_out(owners, actor=actor)
    until = asyncio.get_running_loop().time() + patience_seconds
    kept = _WAITING if after_delivery else (State.DELIVERING,)
    is_over = False
    while (rows := await owned(parts, owners)) and not is_over:
        is_late = asyncio.get_running_loop().time() >= until
        removable = [row for row in rows if row.state not in kept]
        act = new_act("everything of one owner")
        gone = set(await change_rows(parts.repairs.discard, removable, actor=actor, act=act))
        events.update(row.state for row in rows if row.id in gone)
        is_over = is_late and (not gone or len(rows) < _MOST)
        if len(gone) < len(rows) and not is_over:
            await asyncio.sleep(_LOOK_SECONDS)
    records = [await parts.repairs.erase_records(owner, actor=actor) for owner in owners]
    return Certificate(
        at=wall_now_ms(),
        by=actor,
        events=dict(events),
        settings=sum(one.settings for one in records),
        audit_rows=sum(one.audit_rows for one in records),
        left=len(rows),
        out_of_reach=(*OUT_OF_REACH, *parts.remains),
    )
