"""Changing many rows by one command of an operator.

A change names ids in pages, so that it never holds up posts, and it changes no row that was not
shown before: a row whose state has changed meanwhile is left alone. All pages are one act in the
audit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from service.operations.explain import past_horizon
from service.outbox.audit import Act
from service.outbox.model import Filter, Row, State

PAGE = 500


class Change(Protocol):
    """`replay` or `discard` of the Repairs."""

    async def __call__(self, wanted: Filter, *, actor: str, act: Act | None = None) -> list[str]:
        """Change the rows that match; returns their ids."""
        ...


async def change_rows(change: Change, rows: Sequence[Row], *, actor: str, act: Act) -> list[str]:
    """Change these rows where they still have their states; returns the ids of those changed."""
    done: list[str] = []
    for state in State:
        ids = [row.id for row in rows if row.state is state]
        done += await change_ids(change, ids, state, actor=actor, act=act)
    return done


async def change_ids(
    change: Change, ids: Sequence[str], state: State, *, actor: str, act: Act
) -> list[str]:
    """Change the rows with these ids that are in `state`; returns the ids of those changed."""
    done: list[str] = []
    for page in _pages(ids):
        wanted = Filter(ids=page, state=state, limit=PAGE)
        done += await change(wanted, actor=actor, act=act)
    return done


def late_rows(rows: Iterable[Row], now_ms: int) -> int:
    """How many of these rows Inngest may have forgotten: another send may run them again."""
    return sum(past_horizon(row, now_ms) for row in rows)


def _pages(ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(ids[start : start + PAGE]) for start in range(0, len(ids), PAGE))
