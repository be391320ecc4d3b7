"""Requests without a socket: a head, and a body that is there or arrives as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from unittest import mock

from aiohttp import StreamReader, web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

JSON = {"Content-Type": "application/json"}
Headers = Iterable[tuple[str, str]] | dict[str, str]


def made_request(
    body: bytes = b"",
    headers: Headers = (),
    *,
    chunks: Iterable[bytes] = (),
    ends: bool = True,
    method: str = "POST",
    path: str = "/api/things",
    **more: Any,
) -> web.Request:
    """A request whose `body` is there; the `chunks` arrive in later turns of the loop.

    A body that does not end (`ends`) is one whose rest the client never sends.
    """
    loop = asyncio.get_running_loop()
    content = StreamReader(mock.Mock(_reading_paused=False), 2**16, loop=loop)
    if body:
        content.feed_data(body)
    left = list(chunks)

    def arrive() -> None:
        if left:
            content.feed_data(left.pop(0))
            loop.call_soon(arrive)
        elif ends:
            content.feed_eof()

    if left:
        loop.call_soon(arrive)
    else:
        arrive()
    given = CIMultiDict(headers)
    more.setdefault("app", web.Application())
    made = make_mocked_request(method, path, given, payload=content, loop=loop, **more)
    made.writer.output_size = 0
    return made
