"""Bugs that are planted on purpose, in both stores, so that the check is seen to find them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from service.outbox.figures import Stats
from service.outbox.model import Row
from service.outbox.postgres import repairs as postgres_repairs
from service.outbox.postgres.inspector import PostgresInspector
from service.outbox.postgres.intake import PostgresIntake
from service.outbox.retention import PurgedPage
from service.outbox.sqlite.inspector import SqliteInspector
from service.outbox.sqlite.intake import SqliteIntake
from service.outbox.sqlite.queries import SQL
from service.outbox.sqlite.repairs import SqlitePurger, SqliteRepairs

_INSPECTORS: tuple[Any, ...] = (SqliteInspector, PostgresInspector)
_INTAKES: tuple[Any, ...] = (SqliteIntake, PostgresIntake)
_REPAIRS: tuple[Any, ...] = (SqliteRepairs, postgres_repairs.PostgresRepairs)
_FEW = 2
_PAUSE_SECONDS = 0.02
_LATE_SECONDS = 0.2


def _stale_stats() -> None:
    """Each look at the figures is told what the look before was."""
    for inspector in _INSPECTORS:

        async def before(self: Any, stats: Any = inspector.stats) -> Stats:
            now = await stats(self)
            told = getattr(self, "told", now)
            self.told = now
            return told  # type: ignore[no-any-return]

        inspector.stats = before


def _figures_of_two_moments() -> None:
    for inspector in _INSPECTORS:

        async def mixed(self: Any, stats: Any = inspector.stats) -> Stats:
            first = await stats(self)
            await asyncio.sleep(_PAUSE_SECONDS)
            second = await stats(self)
            late = {name: getattr(second, name) for name in ("sent", "delivered", "dead")}
            return msgspec.structs.replace(first, **late)

        inspector.stats = mixed


def _list_without_a_row() -> None:
    for inspector in _INSPECTORS:

        async def skipping(self: Any, wanted: Any, rows: Any = inspector.rows) -> list[Row]:
            found = await rows(self, wanted)
            return [*found[:1], *found[2:]]

        inspector.rows = skipping


def _purge_in_parts() -> None:
    """A page is removed in several commits."""
    postgres_repairs._PURGE_PAGE = _FEW
    SQL._texts["PURGE_PICK"] = f"""
        SELECT json_group_array(seq) FROM (SELECT seq {SQL["PURGE_PICK"].partition("(seq)")[2]}
                                           LIMIT {_FEW})
    """
    remove = SqlitePurger.purge_page

    async def in_parts(self: SqlitePurger, after_seq: int, older_than: float) -> PurgedPage:
        page, removed = await remove(self, after_seq, older_than), 0
        while page.removed:
            removed += page.removed
            page = await remove(self, after_seq, older_than)
        return PurgedPage(page.next_after, removed)

    SqlitePurger.purge_page = in_parts  # type: ignore[method-assign]


def _pause_is_answered_early() -> None:
    late = set[asyncio.Task[Any]]()
    for repairs in _REPAIRS:

        async def pause(self: Any, set_paused: Any = repairs.set_paused, **named: Any) -> None:
            await asyncio.sleep(_LATE_SECONDS)
            await set_paused(self, **named)

        async def early(self: Any, pause: Any = pause, **named: Any) -> Any:
            task = asyncio.create_task(pause(self, **named))
            late.add(task)
            task.add_done_callback(late.discard)
            return await self._delivery.load()

        repairs.set_paused = early


def _show_remembers() -> None:
    for intake in _INTAKES:

        async def remembering(self: Any, event_id: str, find: Any = intake.find) -> Row | None:
            seen: dict[str, Row | None] = self.__dict__.setdefault("seen", {})
            if event_id not in seen:
                seen[event_id] = await find(self, event_id)
            return seen[event_id]

        intake.find = remembering


PLANTED: dict[str, Callable[[], None]] = {
    "a list without a row": _list_without_a_row,
    "figures of two moments": _figures_of_two_moments,
    "stale figures": _stale_stats,
    "a purge in parts": _purge_in_parts,
    "a pause that is answered early": _pause_is_answered_early,
    "an event that is remembered": _show_remembers,
}
