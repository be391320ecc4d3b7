"""Bugs of purges, counts, memory and operators' commands, planted on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from service.outbox.model import Named, Settlement
from service.outbox.sqlite.file.connection import SQL
from service.outbox.sqlite.intake import SqliteIntake
from service.outbox.sqlite.queue import SqliteSettlements
from service.outbox.sqlite.repairs import SqliteRepairs
from service.outbox.sqlite.state import StoredCounts
from service.relay.breaker_sync import BreakerSync
from service.relay.relay import Relay

_FEW_ROWS = 20


def _purge_the_dead_too() -> None:
    SQL["PURGE_PICK"] = SQL["PURGE_PICK"].replace("AND dead = 0", "")


def _give_no_bytes_back() -> None:
    def free_bytes(self: StoredCounts, freed: Mapping[str, int]) -> None:
        del self, freed

    StoredCounts.free_bytes = free_bytes  # type: ignore[method-assign]


def _count_an_array_as_one() -> None:
    enter = StoredCounts.enter

    def entering(self: StoredCounts, owner: str, rows: int, size: int) -> bool:
        return enter(self, owner, min(rows, 1), size)

    StoredCounts.enter = entering  # type: ignore[method-assign]


def _return_no_place_to_the_count() -> None:
    def returned(self: StoredCounts, pending: Mapping[str, int]) -> None:
        del self, pending

    StoredCounts.returned = returned  # type: ignore[method-assign]


def _remember_every_settlement() -> None:
    settled = SqliteSettlements._settled

    def remembering(self: SqliteSettlements, item: Settlement, *, is_wanted: bool) -> None:
        settled(self, item, is_wanted=is_wanted)
        self._unseen[item.claim] = set(item.sent)

    SqliteSettlements._settled = remembering  # type: ignore[method-assign]


def _remember_every_send() -> None:
    def ended(self: Relay, task: asyncio.Task[None]) -> None:
        del self, task

    Relay._ended = ended  # type: ignore[method-assign]


def _send_in_a_pause() -> None:
    def pause(self: BreakerSync, record: object) -> None:
        del self, record

    BreakerSync._pause = pause  # type: ignore[method-assign]


def _discard_nothing() -> None:
    async def discard(self: SqliteRepairs, wanted: Named, **named: Any) -> list[str]:
        return list(wanted.ids)

    SqliteRepairs.discard = discard  # type: ignore[method-assign]


def _post_when_few_wait() -> None:
    append = SqliteIntake.append

    async def waiting(self: SqliteIntake, *given: Any, **named: Any) -> Any:
        while self._counts.total > _FEW_ROWS:  # noqa: ASYNC110  (a bug on purpose)
            await asyncio.sleep(0.1)
        return await append(self, *given, **named)

    SqliteIntake.append = waiting  # type: ignore[method-assign]


BUGS: dict[str, Callable[[], None]] = {
    "purge the dead, too": _purge_the_dead_too,
    "give no bytes back": _give_no_bytes_back,
    "count an array as one": _count_an_array_as_one,
    "return no place to the count": _return_no_place_to_the_count,
    "remember every settlement": _remember_every_settlement,
    "remember every send": _remember_every_send,
    "send in a pause": _send_in_a_pause,
    "discard nothing": _discard_nothing,
    "post when few wait": _post_when_few_wait,
}
