"""`outbox stats` and `outbox explain`: the figures of the outbox, and of one event's name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, cast

import msgspec
import typer

from inngest_outbox.bootstrap.operations import (
    is_served,
    known_names,
    open_reading,
    service_status,
)
from inngest_outbox.config.outbox_url import redacted_url
from inngest_outbox.console.operations.explain import counted, explain_name
from inngest_outbox.console.operations.views import stats_view
from inngest_outbox.console.terminal.command import DEFAULT_URL, Url, run
from inngest_outbox.console.terminal.options import Json
from inngest_outbox.console.terminal.tables import (
    groups_table,
    names_table,
    owners_table,
    print_json,
    show_lines,
    stats_table,
)
from inngest_outbox.errors import OutboxError
from inngest_outbox.observe.printable import printable
from inngest_outbox.outbox.figures import GROUPED_ROWS, DeadGroup, OwnerShare, Stats
from inngest_outbox.outbox.model import DeliveryRecord
from inngest_outbox.runs.figures import NameView

Owners = Annotated[
    bool,
    typer.Option("--owners", help="Also show who holds the most bytes. Reads every row."),
]
_MAX_OWNERS = 10
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the events.")]


def stats(*, owners: Owners = False, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show the outbox in figures: rows by state, delivery, sizes, dead rows, runs by name.

    Example: `outbox stats --json`
    """
    found, shares, groups, names = run(_stats(url, with_owners=owners))
    view = stats_view(found, serving=is_served(url))
    journal = run(_journal(url))
    address = redacted_url(url)
    if json:
        held = {"owners": shares} if owners else {}
        by_name = {
            "names": names,
            "deadGroups": groups,
            **({"journal": journal} if journal else {}),
        }
        print_json({"outbox": address, **msgspec.to_builtins(view), **by_name, **held})
        return
    typer.echo(address)
    show_lines(stats_table(view))
    for words in _journal_words(journal) if journal else ():
        typer.echo(printable(words))
    if groups:
        show_lines(groups_table(groups))
    if names:
        show_lines(names_table(names))
    if owners:
        show_lines(owners_table(shares))


async def _journal(url: str) -> dict[str, Any] | None:
    """The journal as the service sees it; None without one, and without a service."""
    with contextlib.suppress(OutboxError):
        status = await service_status(url)
        return cast("dict[str, Any] | None", status and status.detail.get("journal"))
    return None


def _journal_words(journal: dict[str, Any]) -> Iterator[str]:
    reason = f" ({journal['reason']})" if journal["reason"] else ""
    yield (
        f"journal {journal['bucket']}: {journal['state']}{reason}, "
        f"{counted(journal['objects'], 'object')}, {counted(journal['missing'], 'event')} missing"
    )
    if journal["restored"]:
        yield (
            f"{counted(journal['restored'], 'event')} came back from it, "
            f"{journal['restoredDead']:,} dead; {journal['mayRunTwice']:,} may run twice"
        )
    yield from journal["refused"]


async def _stats(
    url: str, *, with_owners: bool
) -> tuple[Stats, list[OwnerShare], list[DeadGroup], Sequence[NameView]]:
    async with open_reading(url) as outbox:
        asked = outbox.inspector
        shares = await asked.owners(_MAX_OWNERS) if with_owners else []
        figures, groups = await asked.stats(), await asked.dead_groups(GROUPED_ROWS)
    return figures, shares, groups, (await known_names(url)).names


def explain_command(name: Name, *, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Explain the way of the events of a name: delivery, runs, how these end, dead events.

    Example: `outbox explain documents/aws.index`
    """
    view, delivery = run(_known(url, name))
    sentences = explain_name(name, view, delivery, serving=is_served(url))
    if json:
        print_json({"name": name, "explanation": sentences, "known": view})
        return
    for sentence in sentences:
        typer.echo(printable(sentence))


async def _known(url: str, name: str) -> tuple[NameView | None, DeliveryRecord]:
    async with open_reading(url) as outbox:
        delivery = await outbox.inspector.load_delivery()
    names = {one.name: one for one in (await known_names(url)).names}
    return names.get(name), delivery
