"""Bugs that are planted on purpose, in both stores, so that the check is seen to find them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from service.errors import OutboxUnavailableError
from service.outbox.event import Event
from service.outbox.figures import Stats
from service.outbox.inngest_id import InngestIds
from service.outbox.keys import Receipt
from service.outbox.link.store_link import StoreLink
from service.outbox.model import Named, Row, State
from service.outbox.postgres import repairs as postgres_repairs
from service.outbox.postgres.inspector import PostgresInspector
from service.outbox.postgres.rows import PostgresRows
from service.outbox.retention import PurgedPage
from service.outbox.sqlite.appends import SqliteAppends
from service.outbox.sqlite.file.connection import SQL
from service.outbox.sqlite.inspector import SqliteInspector
from service.outbox.sqlite.intake import SqliteIntake
from service.outbox.sqlite.records import SqliteDelivery
from service.outbox.sqlite.repairs import SqlitePurger, SqliteRepairs

_INSPECTORS: tuple[Any, ...] = (SqliteInspector, PostgresInspector)
_LOOKUPS: tuple[Any, ...] = (SqliteIntake, PostgresRows)
_DELIVERIES: tuple[Any, ...] = (SqliteDelivery, postgres_repairs.PostgresDelivery)
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
            first: Stats = await stats(self)
            await asyncio.sleep(_PAUSE_SECONDS)
            second = await stats(self)
            late = {name: getattr(second, name) for name in ("sent", "delivered", "dead")}
            return msgspec.structs.replace(first, **late)

        inspector.stats = mixed


def _list_without_a_row() -> None:
    def without_the_second(rows: Any) -> Any:
        async def skipping(self: Any, wanted: Any) -> list[Row]:
            found = await rows(self, wanted)
            return [*found[:1], *found[2:]]

        return skipping

    SqliteInspector.rows = without_the_second(SqliteInspector.rows)  # type: ignore[method-assign]
    PostgresRows.find_all = without_the_second(PostgresRows.find_all)  # type: ignore[method-assign]


def _purge_in_parts() -> None:
    """A page is removed in several commits."""
    postgres_repairs._PURGE_PAGE = _FEW
    SQL["PURGE_PICK"] = f"""
        SELECT json_group_array(seq) FROM (SELECT seq {SQL["PURGE_PICK"].partition("(seq)")[2]}
                                           LIMIT {_FEW})
    """
    remove = SqlitePurger.purge_page

    async def in_parts(self: SqlitePurger, after_seq: int, older_than_seconds: float) -> PurgedPage:
        page, removed = await remove(self, after_seq, older_than_seconds), 0
        while page.removed:
            removed += page.removed
            page = await remove(self, after_seq, older_than_seconds)
        return PurgedPage(page.next_after, removed)

    SqlitePurger.purge_page = in_parts  # type: ignore[method-assign]


def _pause_is_answered_early() -> None:
    late = set[asyncio.Task[Any]]()
    for delivery in _DELIVERIES:

        async def pause(self: Any, set_paused: Any = delivery.set_paused, **named: Any) -> None:
            await asyncio.sleep(_LATE_SECONDS)
            await set_paused(self, **named)

        async def early(self: Any, pause: Any = pause, **named: Any) -> Any:
            task = asyncio.create_task(pause(self, **named))
            late.add(task)
            task.add_done_callback(late.discard)
            return await self.load()

        delivery.set_paused = early


def _show_remembers() -> None:
    for lookup in _LOOKUPS:

        async def remembering(self: Any, event_id: str, find: Any = lookup.find) -> Row | None:
            seen: dict[str, Row | None] = self.__dict__.setdefault("seen", {})
            if event_id not in seen:
                seen[event_id] = await find(self, event_id)
            return seen[event_id]

        lookup.find = remembering


def _replay_takes_delivered_events() -> None:
    for repairs in _REPAIRS:

        async def replay(
            self: Any, wanted: Named, replay: Any = repairs.replay, **named: Any
        ) -> Any:
            delivered = msgspec.structs.replace(wanted, state=State.DELIVERED)
            return [*await replay(self, wanted, **named), *await replay(self, delivered, **named)]

        repairs.replay = replay


def _purge_takes_sent_events() -> None:
    SQL["PURGE_PAGE"] = SQL["PURGE_PAGE"].replace(
        "FROM outbox_done", "FROM (SELECT seq FROM outbox_done UNION SELECT seq FROM outbox_sent)"
    )
    SQL["PURGE_PICK"] = """
        SELECT json_group_array(seq) FROM (
            SELECT seq FROM outbox_done WHERE dead = 0 UNION SELECT seq FROM outbox_sent)
        WHERE seq > :after AND seq <= :upto AND :before AND :ran_before IS NOT NULL
    """


def _numbers_begin_again_after_a_purge() -> None:
    """Each append looks for the last number among the rows that are left."""
    SQL["REMEMBER_LAST"] = "SELECT :seqs"
    apply = SqliteAppends.apply

    def looking(self: SqliteAppends, *given: Any) -> Sequence[Any]:
        self._next_seq = None
        return apply(self, *given)

    SqliteAppends.apply = looking  # type: ignore[method-assign, assignment]


def _settle_without_the_token() -> None:
    for name in ("DELIVERED", "SENT", "RETRY", "DEAD", "END", "END_RANGE"):
        text = SQL[f"SETTLE_{name}"]
        text = text.replace("AND claim = :claim", "AND :claim > ''")
        SQL[f"SETTLE_{name}"] = text.replace("claim = :claim", ":claim > ''")


def _front_answers_for_a_store_that_is_gone() -> None:
    append = StoreLink.append

    async def answering(self: StoreLink, event: Event, **named: Any) -> Receipt:
        try:
            return await append(self, event, **named)
        except OutboxUnavailableError:
            return Receipt(event.id, 0, event.accepted_at_ms, InngestIds(bytes(6)))

    StoreLink.append = answering  # type: ignore[method-assign]


PLANTED: dict[str, Callable[[], None]] = {
    "a list without a row": _list_without_a_row,
    "figures of two moments": _figures_of_two_moments,
    "stale figures": _stale_stats,
    "a purge in parts": _purge_in_parts,
    "a pause that is answered early": _pause_is_answered_early,
    "an event that is remembered": _show_remembers,
    "a replay of delivered events": _replay_takes_delivered_events,
}
# Bugs of the store with one writing process, and of its fronts.
SQLITE: dict[str, Callable[[], None]] = {
    "a purge of sent events": _purge_takes_sent_events,
    "a number that is given twice": _numbers_begin_again_after_a_purge,
    "a settlement without its token": _settle_without_the_token,
    "a front that answers for a dead store": _front_answers_for_a_store_that_is_gone,
}
