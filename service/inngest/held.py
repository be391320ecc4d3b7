"""Asks Inngest in bulk which events it holds.

Rows of one outbox have rising ULIDs. So a page of Inngest's list that begins just above the newest
wanted event has only wanted events, unless others send to the same Inngest. An event counts as held
only when Inngest shows its ULID with its own id.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from service.errors import InngestApiError
from service.outbox.inngest_id import WantedEvent, decode_ulid, encode_ulid

MAX_PAGE = 50
"""How many events Inngest returns at most, whatever the limit is."""


class HeldEvent(msgspec.Struct, frozen=True, gc=False):
    """An event that Inngest holds: its ULID and the id that its sender gave it."""

    ulid: str
    event_id: str


class EventPages(Protocol):
    """Inngest's list of events."""

    async def page(
        self, before: str, limit: int, environment: str | None = None
    ) -> Sequence[HeldEvent]:
        """The newest events with a ULID below `before`, newest first, at most `limit`.

        `environment` None asks for the service's own. An empty page means that there are none.
        Raises InngestApiError.
        """
        ...


async def find_held(pages: EventPages, wanted: Mapping[int, WantedEvent]) -> set[int]:
    """The ULIDs of `wanted` (by ULID as a number) that Inngest holds.

    Costs one request for 50 events that no other sender's lie between, in each environment.
    Raises InngestApiError.
    """
    held: set[int] = set()
    for environment in dict.fromkeys(one.environment for one in wanted.values()):
        here = {ulid: one for ulid, one in wanted.items() if one.environment == environment}
        held |= await _held_in(pages, here, environment)
    return held


async def _held_in(
    pages: EventPages, wanted: Mapping[int, WantedEvent], environment: str | None
) -> set[int]:
    """Reads down from the newest wanted event, and over what lies between two wanted ones."""
    held: set[int] = set()
    left = sorted(wanted)
    while left:
        limit = min(MAX_PAGE, len(left))
        page = await pages.page(encode_ulid(left[-1] + 1), limit, environment)
        try:
            shown = {decode_ulid(one.ulid): one for one in page}
        except ValueError:
            raise InngestApiError("Inngest shows an event without a ULID.") from None
        held.update(ulid for ulid, one in shown.items() if _is_the(wanted.get(ulid), one))
        if not shown:
            break
        del left[bisect.bisect_left(left, min(left[-1], *shown)) :]
    return held


def _is_the(wanted: WantedEvent | None, shown: HeldEvent) -> bool:
    return wanted is not None and shown.event_id == (wanted.event_id or shown.ulid)
