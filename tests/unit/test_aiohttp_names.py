"""The private names of aiohttp that the server relies on. A release that changes one fails here."""

from __future__ import annotations

import ast
from pathlib import Path

from aiohttp import web

SERVER = Path(__file__).parents[2] / "service" / "inngest_outbox" / "web" / "server"
# Attributes of a connection: a handler has them in its slots.
CONNECTION = {
    "_buffer_paused",
    "_loop",
    "_max_msg_queue_size",
    "_messages",
    "_msg_queue_resume_size",
    "_parser",
    "_reading_paused",
    "_request_in_progress",
    "_task_handler",
    "_waiter",
}


def slots(kind: type) -> set[str]:
    return {name for one in kind.__mro__ for name in getattr(one, "__slots__", ())}


def names_used(module: str) -> set[str]:
    tree = ast.parse((SERVER / f"{module}.py").read_text())
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


async def test_a_connection_has_each_private_name_that_ours_uses() -> None:
    assert slots(web.RequestHandler) >= CONNECTION
    used = names_used("connection") | names_used("request_parser")
    private = {name for name in used if name in slots(web.RequestHandler) and name[0] == "_"}
    assert private == CONNECTION
