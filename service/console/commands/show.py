"""`outbox show ID`: one event and why it is where it is."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from service.bootstrap.operations import is_served, open_inspector
from service.config.destination import Destination
from service.console.operations.event_ids import FoundIds, find_ids
from service.console.operations.explain import explain
from service.console.operations.views import row_view
from service.console.terminal.address import DEFAULT_URL, Url
from service.console.terminal.command import one_event, run
from service.console.terminal.options import EventId, Json
from service.console.terminal.tables import print_json, row_table, show_lines
from service.observe.printable import escaped_json
from service.outbox.clock import wall_now_ms
from service.outbox.model import DeliveryRecord

Payload = Annotated[
    bool, typer.Option("--payload", help="Show the payload too. It is personal data.")
]


def show(
    event_id: EventId, *, payload: Payload = False, url: Url = DEFAULT_URL, json: Json = False
) -> None:
    """Show one event: its row, its history, why it is where it is and what happens next.

    Example: `outbox show 019e…`
    """
    found, delivery, stored = run(_one(url, event_id, with_payload=payload))
    row = one_event(found)
    why = explain(row, delivery, now_ms=wall_now_ms(), serving=is_served(url))
    view = row_view(row)
    if json:
        destination = delivery.destination or None if delivery else None
        fields = {**msgspec.to_builtins(view), "explanation": why, "destination": destination}
        shown = {"payload": msgspec.Raw(stored)} if stored is not None else {}
        print_json({**fields, **shown})
        return
    show_lines(row_table(view, why))
    if delivery and delivery.destination == Destination.FAKE:
        typer.echo("The service sends to a fake Inngest.")
    if stored is not None:
        typer.echo(escaped_json(msgspec.json.format(stored.decode(), indent=2)))


async def _one(
    url: str, event_id: str, *, with_payload: bool
) -> tuple[FoundIds, DeliveryRecord | None, bytes | None]:
    async with open_inspector(url) as outbox:
        found = await find_ids(outbox, [event_id])
        stored = await outbox.payload(found.rows[0].id) if with_payload and found.rows else None
        return found, await outbox.load_delivery(), stored
