"""Asks Inngest in bulk which events it holds.

Rows of one outbox have consecutive ULIDs. So a page of Inngest's list that begins just above the
newest wanted event has only wanted events. An event counts as held only when Inngest shows its ULID
with its own id.
"""

from __future__ import annotations

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

    Costs one request for 50 held events and one for each stretch of ULIDs in each environment.
    Raises InngestApiError.
    """
    held: set[int] = set()
    for environment in dict.fromkeys(one.environment for one in wanted.values()):
        here = {ulid: one for ulid, one in wanted.items() if one.environment == environment}
        for first, last in stretches(sorted(here)):
            held |= await _held_between(pages, here, first, last, environment)
    return held


async def _held_between(
    pages: EventPages,
    wanted: Mapping[int, WantedEvent],
    first: int,
    last: int,
    environment: str | None,
) -> set[int]:
    held: set[int] = set()
    least, before = encode_ulid(first), last + 1
    while before > first:
        limit = min(MAX_PAGE, before - first)
        page = await pages.page(encode_ulid(before), limit, environment)
        # The texts of ULIDs have the order of their numbers. Older events are not decoded.
        newer = [one for one in page if one.ulid >= least]
        try:
            shown = [(decode_ulid(one.ulid), one.event_id) for one in newer]
        except ValueError:
            raise InngestApiError("Inngest shows an event without a ULID.") from None
        held.update(ulid for ulid, event_id in shown if _is_the(wanted.get(ulid), event_id))
        if not shown or len(shown) < len(page):
            break
        before = min(shown[-1][0], before - 1)
    return held


def _is_the(wanted: WantedEvent | None, event_id: str) -> bool:
    return wanted is not None and wanted.event_id == event_id


def stretches(ulids: Sequence[int]) -> list[tuple[int, int]]:
    """The first and last of each stretch of ascending `ulids`.

    A new stretch begins where skipping the gap costs less than reading a page of it.

    >>> stretches([1, 2, 40, 100, 101])
    [(1, 40), (100, 101)]
    """
    found: list[tuple[int, int]] = []
    for ulid in ulids:
        if found and ulid - found[-1][1] <= MAX_PAGE:
            found[-1] = (found[-1][0], ulid)
        else:
            found.append((ulid, ulid))
    return found
