"""The private names of aiohttp that the server relies on. A release that changes one fails here."""

from __future__ import annotations

import ast
from pathlib import Path

from aiohttp import web, web_protocol
from aiohttp.http import HttpRequestParser
from aiohttp.web_runner import AppRunner

SERVER = Path(__file__).parents[2] / "service" / "web" / "server"
# Attributes of a connection: a handler has them in its slots.
CONNECTION = {
    "_buffer_paused",
    "_close",
    "_force_close",
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
SERVERS = {"_connections", "_handler", "_kwargs", "_loop"}
RUNNER = {"_kwargs", "_make_server"}


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


async def test_a_fault_of_the_parser_is_told_by_the_private_class_that_ours_makes() -> None:
    assert web_protocol._ErrInfo(400, ValueError(), "").status == 400


async def test_a_server_and_its_runner_have_each_private_name_that_ours_uses() -> None:
    server = web.Server(lambda _: None)  # type: ignore[arg-type, return-value]
    assert vars(server).keys() >= SERVERS - {"_handler"}
    runner = AppRunner(web.Application())
    assert all(hasattr(runner, name) for name in RUNNER)


async def test_the_parser_is_the_one_in_c_whose_arguments_ours_passes() -> None:
    parser = HttpRequestParser(
        web.RequestHandler(web.Server(lambda _: None), loop=None),  # type: ignore[arg-type, return-value]
        None,
        65_536,
        max_line_size=8_190,
        max_field_size=8_190,
        payload_exception=web.RequestPayloadError,
        auto_decompress=False,
    )
    assert parser.feed_data(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")[0][0][0].path == "/"
