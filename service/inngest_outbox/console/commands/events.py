"""`outbox list` and `outbox show`: rows that match, and one event with the reason for its state."""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
import typer

from inngest_outbox.bootstrap.operations import is_served, open_reading
from inngest_outbox.bootstrap.process import make_http
from inngest_outbox.config.destination import Destination
from inngest_outbox.config.settings import Settings
from inngest_outbox.console.operations.explain import explain
from inngest_outbox.console.operations.search import (
    FoundIds,
    Listing,
    Search,
    SearchPolicy,
    find_ids,
    list_rows,
)
from inngest_outbox.console.operations.views import payload_json, payload_text, row_view
from inngest_outbox.console.terminal.command import DEFAULT_URL, Url, one_event, run
from inngest_outbox.console.terminal.options import (
    Cursor,
    EventId,
    Json,
    Limit,
    OfState,
    RowOptions,
    with_groups,
)
from inngest_outbox.console.terminal.tables import (
    console,
    print_json,
    row_list,
    row_table,
    searched_to,
    show_lines,
)
from inngest_outbox.errors import ConfigurationError, InngestApiError
from inngest_outbox.inngest.address import run_link
from inngest_outbox.inngest.rest_api import make_rest_api
from inngest_outbox.inngest.runs import Run, runs_of
from inngest_outbox.observe.printable import escaped_json, printable
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.model import DeliveryRecord, Filter, Row

_FINDING, _COUNTING = SearchPolicy(budget_seconds=8.0), SearchPolicy(budget_seconds=2.0)
_TIMEOUT_SECONDS = 3.0
_SHOWN_RUNS = 5

Payload = Annotated[
    bool, typer.Option("--payload", help="Show the payload too. It is personal data.")
]


@with_groups
def list_command(
    *,
    state: OfState = None,
    rows: RowOptions,
    limit: Limit = 20,
    cursor: Cursor = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """List rows, newest first. Every given filter must match.

    A search that takes longer than 8 s says on standard error how far back it went, and with which
    --cursor it continues.

    Examples: `outbox list --state dead --since 2h`, `outbox list --user u-1 --json`
    """
    wanted = msgspec.structs.replace(rows.filter(state=state, limit=limit), before_seq=cursor)
    say(run(_listing(url, wanted)), json=json)


def say(listing: Listing, *, json: bool) -> None:
    """Print the rows, and on standard error what is not among them."""
    found = listing.found
    views = [row_view(row) for row in found.rows]
    if json:
        print_json(views)
    elif views:
        show_lines(row_list(views, wall_now_ms(), console().width))
    if found.paused_at_ms is not None:
        rest = f"--cursor {found.next_seq} continues"
        typer.echo(searched_to(found.paused_at_ms, rest), err=True)
    elif not json and not views:
        typer.echo("No rows match.", err=True)
    elif not json and found.next_seq is not None:
        rest = f"--limit shows more, --cursor {found.next_seq} the next ones"
        typer.echo(f"{listing.words}; {rest}.", err=True)


async def _listing(url: str, wanted: Filter) -> Listing:
    async with open_reading(url) as outbox:
        search, counting = (
            Search(outbox.inspector, outbox.positions, policy) for policy in (_FINDING, _COUNTING)
        )
        return await list_rows(search, counting, wanted)


def show(
    event_id: EventId, *, payload: Payload = False, url: Url = DEFAULT_URL, json: Json = False
) -> None:
    """Show one event: its row, its history, why it is where it is and what happens next.

    Example: `outbox show 019e…`
    """
    found, delivery, stored = run(_one(url, event_id, with_payload=payload))
    row = one_event(found)
    runs, used_by = run(_runs(row))
    why = explain(row, delivery, now_ms=wall_now_ms(), serving=is_served(url))
    view = row_view(row)
    if json:
        destination = delivery.destination or None
        fields = {**msgspec.to_builtins(view), "explanation": why, "destination": destination}
        fields |= {"runs": msgspec.to_builtins(runs), "idUsedBy": used_by}
        shown = {} if stored is None else {"payload": _payload(stored)}
        print_json({**fields, **shown})
        return
    show_lines(row_table(view, why))
    for one in runs:
        typer.echo(printable(f"{one.status} run of {one.function}: {one.url}"))
    if used_by:
        typer.echo(f"Inngest runs nothing for it: it held its id before, as {used_by}.")
    if delivery.destination == Destination.FAKE:
        typer.echo("The service sends to a fake Inngest.")
    if stored:
        typer.echo(escaped_json(payload_text(stored)))


def _payload(stored: bytes) -> msgspec.Raw | str | None:
    """The payload for JSON. One that is no JSON is a text, None once it was removed."""
    text = payload_json(stored)
    return msgspec.Raw(text.encode()) if text else stored.decode(errors="replace") or None


async def _runs(row: Row) -> tuple[tuple[Run, ...], str | None]:
    """The event's runs; of one without, the ULID of another event that had its id before.

    None of both where Inngest can't be asked or gives no answer soon.
    """
    ulid, wire_id, environment = row.at_inngest, row.meta.wire_id, row.meta.environment
    if ulid is None:
        return (), None
    try:
        settings = Settings.load(os.environ)
        async with make_http(limit=1) as http:
            reader = make_rest_api(settings, http, timeout_seconds=_TIMEOUT_SECONDS)
            if reader is None:
                return (), None
            ids = await reader.run_ids(ulid, environment)
            told = [await reader.run(run_id, environment) for run_id in ids[:_SHOWN_RUNS]]
            used_by = None
            if wire_id and not ids:
                used_by = await reader.used_before(ulid, wire_id, row.name, environment)
    except (ConfigurationError, InngestApiError):
        return (), None
    return runs_of(filter(None, told), run_link(settings), environment), used_by


async def _one(
    url: str, event_id: str, *, with_payload: bool
) -> tuple[FoundIds, DeliveryRecord, bytes | None]:
    async with open_reading(url) as outbox:
        asked = outbox.inspector
        found = await find_ids(asked, [event_id])
        stored = await asked.payload(found.rows[0].id) if with_payload and found.rows else None
        return found, await asked.load_delivery(), stored
