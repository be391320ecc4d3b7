"""`outbox audit`: what operators did."""

from __future__ import annotations

from typing import Annotated

import typer

from inngest_outbox.bootstrap.operations import open_reading
from inngest_outbox.console.operations.explain import counted, spoken_time
from inngest_outbox.console.terminal.command import DEFAULT_URL, Url, run
from inngest_outbox.console.terminal.options import Json, Limit
from inngest_outbox.console.terminal.tables import plain, print_json, show_lines
from inngest_outbox.outbox.audit import AuditRecord

OfEvent = Annotated[
    str | None,
    typer.Argument(metavar="[ID]", help="Only what was done to this event; its id or the start."),
]
_SHOWN = 3


def audit(
    event: OfEvent = None,
    *,
    limit: Limit = 20,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Show what operators did, newest first: who, what, how the events were chosen, which.

    Examples: `outbox audit`, `outbox audit 019e…`, `outbox audit --limit 1 --json`
    """
    records = run(_audit(url, limit, event))
    if json:
        print_json(records)
        return
    for record in records:
        show_lines(plain(_headline(record)))
        for line in _events(record):
            show_lines(plain(f"  {line}"))
    if not records:
        typer.echo("No operator action is recorded.", err=True)


def _headline(record: AuditRecord) -> str:
    count = counted(len(record.ids), "event") if record.action in ("replay", "discard") else ""
    detail = f"({record.detail})" if count else record.detail
    words = (spoken_time(record.at), record.actor, record.action, count, detail)
    return "  ".join(word for word in words if word)


def _events(record: AuditRecord) -> list[str]:
    shown = list(record.ids[:_SHOWN])
    more = len(record.ids) - len(shown)
    return [*shown, f"and {more:,} more; --json names all"] if more else shown


async def _audit(url: str, limit: int, event: str | None) -> list[AuditRecord]:
    async with open_reading(url) as outbox:
        return await outbox.inspector.audit(limit, event=event)
