"""`outbox audit`: what operators did."""

from __future__ import annotations

from service.bootstrap.operations import open_inspector
from service.cli.outbox.command import run
from service.cli.outbox.options import DEFAULT_URL, Json, Limit, Url
from service.cli.outbox.tables import console, plain, print_json
from service.operations.explain import spoken_time


def audit(*, limit: Limit = 20, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Show what operators did, newest first.

    Example: `outbox audit --limit 50`
    """
    actions = run(_audit(url, limit))
    if json:
        print_json(actions)
        return
    for action in actions:
        at = action["at"]
        when = spoken_time(at) if isinstance(at, int) else ""
        words = f"{when}  {action['actor']}  {action['action']}  {action['detail']}"
        console().print(plain(words))


async def _audit(url: str, limit: int) -> list[dict[str, object]]:
    async with open_inspector(url) as outbox:
        return await outbox.audit(limit)
