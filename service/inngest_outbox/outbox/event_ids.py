"""One owner's ids are its own, although ids are global to Inngest.

Inngest runs the first of two events with one id only. The invariant: an event whose id another
owner used in the last 24 hours leaves under an id of its own, decided in the transaction that
stores it.
"""

from __future__ import annotations

from collections.abc import Collection, MutableMapping, Sequence

import msgspec
import structlog

from inngest_outbox.outbox.event import Event

USED_MS = 24 * 3600 * 1000
"""For so long Inngest drops repeats of an id."""
IdUses = MutableMapping[tuple[str, str], set[str]]
"""The owners that used an id lately, by its environment (empty: the service's own) and itself."""

log = structlog.get_logger(__name__)


def is_forgotten(first_sent_at_ms: int | None, now_ms: int) -> bool:
    """True when Inngest may have forgotten the id of an event that was first sent then."""
    return first_sent_at_ms is not None and now_ms - first_sent_at_ms > USED_MS


def own_id(event_id: str, owner: str) -> str:
    """The id of `owner` in place of one that another owner uses.

    >>> own_id("order-1", "key shop")
    'shop/order-1'
    """
    return f"{owner.partition(' ')[2] or owner}/{event_id}"


def named_apart(events: Sequence[Event], uses: IdUses, shared: Collection[str]) -> Sequence[Event]:
    """The events with ids of their own where another owner uses theirs; adds to `uses`.

    The owners in `shared` use each other's ids on purpose.
    """
    return [_named_apart(event, uses, shared) if event.meta.wire_id else event for event in events]


def ids_to_look_for(events: Sequence[Event]) -> list[str]:
    """The ids whose uses `named_apart` has to know."""
    chosen = {(event.meta.wire_id, event.owner) for event in events if event.meta.wire_id}
    return sorted({one for wire_id, owner in chosen for one in (wire_id, own_id(wire_id, owner))})


def _named_apart(event: Event, uses: IdUses, shared: Collection[str]) -> Event:
    meta, owner = event.meta, event.owner
    wire_id = chosen = meta.wire_id or ""
    while True:
        users = uses.setdefault((meta.environment or "", wire_id), set())
        if not {one for one in users if not (one in shared and owner in shared)} - {owner}:
            break
        wire_id = own_id(wire_id, owner)
    users.add(owner)
    if wire_id == chosen:
        return event
    log.warning("event_id_taken", event_id=event.id, owner=owner, sent_as=wire_id)
    return msgspec.structs.replace(event, meta=msgspec.structs.replace(meta, wire_id=wire_id))
