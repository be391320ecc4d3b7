"""Completion of event ids in the shell: quick, bounded, and silent where there is no outbox."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import typer

from service.bootstrap.operations import open_inspector
from service.console.terminal.command import DEFAULT_URL, in_schema
from service.errors import ServiceError
from service.observe.printable import printable
from service.outbox.model import Filter, Row, State

_MAX_OFFERED = 30
_SECONDS = 2.0


def complete_ids(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """The newest ids that begin so, each with its state and name. `replay` is offered dead ones."""
    state = State.DEAD if ctx.info_name == "replay" else None
    wanted = Filter(id_prefix=incomplete or None, state=state, limit=_MAX_OFFERED)
    given = ctx.params.get("url") or os.environ.get("OUTBOX_URL") or DEFAULT_URL
    try:
        rows = asyncio.run(_rows(in_schema(given), wanted))
    except (ServiceError, TimeoutError, typer.BadParameter):
        return
    for row in rows:
        yield row.id, printable(f"{row.state} {row.name} {row.reason or ''}".rstrip())


async def _rows(url: str, wanted: Filter) -> list[Row]:
    async with asyncio.timeout(_SECONDS), open_inspector(url) as outbox:
        return await outbox.rows(wanted)
