"""`outbox show ID`: one event and why it is where it is."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from service.bootstrap.operations import is_served, open_inspector
from service.cli.outbox.command import not_found, run
from service.cli.outbox.options import DEFAULT_URL, EventId, Json, Url
from service.cli.outbox.tables import console, print_json, row_table
from service.config.destination import Destination
from service.observe.printable import escaped_json
from service.operations.explain import explain
from service.operations.views import row_view
from service.outbox.clock import wall_now_ms
from service.outbox.model import DeliveryRecord, Filter, Row

Payload = Annotated[
    bool, typer.Option("--payload", help="Show the payload too. It is personal data.")
]


def show(
    event_id: EventId, *, payload: Payload = False, url: Url = DEFAULT_URL, json: Json = False
) -> None:
    """Show one event: its row, its history, why it is where it is and what happens next.

    Example: `outbox show 019e…`
    """
    row, delivery, stored = run(_one(url, event_id, with_payload=payload))
    if row is None:
        raise not_found(event_id)
    why = explain(row, delivery, now_ms=wall_now_ms(), serving=is_served(url))
    view = row_view(row)
    if json:
        destination = delivery.destination or None if delivery else None
        fields = {**msgspec.to_builtins(view), "explanation": why, "destination": destination}
        shown = {"payload": msgspec.Raw(stored)} if stored is not None else {}
        print_json({**fields, **shown})
        return
    console().print(row_table(view, why))
    if delivery and delivery.destination == Destination.FAKE:
        typer.echo("The service sends to a fake Inngest.")
    if stored is not None:
        typer.echo(escaped_json(msgspec.json.format(stored.decode(), indent=2)))


async def _one(
    url: str, event_id: str, *, with_payload: bool
) -> tuple[Row | None, DeliveryRecord | None, bytes | None]:
    async with open_inspector(url) as outbox:
        rows = await outbox.rows(Filter(ids=(event_id,), limit=1))
        stored = await outbox.payload(event_id) if with_payload else None
        return (rows[0] if rows else None), await outbox.load_delivery(), stored
