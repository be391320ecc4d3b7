"""`outbox explain NAME`: the way of the events of one name, in sentences."""

from __future__ import annotations

from typing import Annotated

import typer

from service.bootstrap.operations import is_served, known_names, open_inspector
from service.console.operations.explain import explain_name
from service.console.terminal.command import DEFAULT_URL, Url, run
from service.console.terminal.options import Json
from service.console.terminal.tables import print_json
from service.observe.printable import printable
from service.outbox.model import DeliveryRecord
from service.runs.figures import NameView

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the events.")]


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
    async with open_inspector(url) as outbox:
        delivery = await outbox.load_delivery()
    names = {one.name: one for one in (await known_names(url)).names}
    return names.get(name), delivery
