"""Asks Inngest in bulk which events it holds.

Rows of one outbox have rising ULIDs. So a page of Inngest's list that begins just above the newest
wanted event has only wanted events, unless others send to the same Inngest. An event counts as held
only when Inngest shows its ULID with its own id.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from inngest_outbox.errors import InngestApiError
from inngest_outbox.outbox.inngest_id import InngestIds, WantedEvent, decode_ulid, encode_ulid
from inngest_outbox.outbox.model import Entry, SentEntry

MAX_PAGE = 50
"""The most events that Inngest returns, whatever the limit is."""

_Entry = TypeVar("_Entry", Entry, SentEntry)


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


async def held_of(pages: EventPages, ids: InngestIds, entries: Sequence[_Entry]) -> list[_Entry]:
    """The entries whose events Inngest holds, by their ULIDs. Raises InngestApiError."""
    ulids = {ids.number(one.seq, one.accepted_at_ms, one.meta): one for one in entries}
    held = await find_held(pages, {ulid: one.as_sent for ulid, one in ulids.items()})
    return [ulids[ulid] for ulid in sorted(held)]


async def find_held(pages: EventPages, wanted: Mapping[int, WantedEvent]) -> set[int]:
    """The ULIDs of `wanted` (by ULID as a number) that Inngest holds.

    Costs one page for 50 events that no other sender's lie between, in each environment, and one
    where none is held. Pages after the first are read side by side. Raises InngestApiError.
    """
    held: set[int] = set()
    for environment in dict.fromkeys(one.environment for one in wanted.values()):
        here = {ulid: one for ulid, one in wanted.items() if one.environment == environment}
        left = await _read(pages, here, sorted(here), environment, held)
        groups = [left[first : first + MAX_PAGE] for first in range(0, len(left), MAX_PAGE)]
        await _all(_read_down(pages, here, group, environment, held) for group in groups)
    return held


async def _read_down(
    pages: EventPages,
    wanted: Mapping[int, WantedEvent],
    left: list[int],
    environment: str | None,
    held: set[int],
) -> None:
    while left:
        left = await _read(pages, wanted, left, environment, held)


async def _read(
    pages: EventPages,
    wanted: Mapping[int, WantedEvent],
    left: list[int],
    environment: str | None,
    held: set[int],
) -> list[int]:
    """Read a page from the newest of the ascending `left` down, and add what it shows to `held`.

    Returns those of `left` that it says nothing about.
    """
    limit = min(MAX_PAGE, len(left))
    page = await pages.page(encode_ulid(left[-1] + 1), limit, environment)
    try:
        shown = {decode_ulid(one.ulid): one for one in page}
    except ValueError:
        raise InngestApiError("Inngest shows an event without a ULID.") from None
    held.update(ulid for ulid, one in shown.items() if _is_the(wanted.get(ulid), one))
    return left[: bisect.bisect_left(left, min(left[-1], *shown))] if shown else []


def _is_the(wanted: WantedEvent | None, shown: HeldEvent) -> bool:
    return wanted is not None and shown.event_id == (wanted.event_id or shown.ulid)


async def _all(reads: Iterable[Coroutine[None, None, None]]) -> None:
    """Wait for all; the first failure cancels the others."""
    tasks = [asyncio.create_task(read) for read in reads]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
