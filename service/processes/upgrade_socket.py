"""The upgrade socket: `outbox upgrade` asks the service for its new version through it.

It is a Unix socket in a folder that only this user may enter. Each process that listens for
requests has one, the parent where there are several. A command finds it by the outbox that is
served, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web

from service.config.outbox_url import redacted_url, sqlite_file
from service.console.operations.socket_server import serve_at
from service.outbox.link.socket_folder import sockets_of_services
from service.processes.upgrades import Outcome, Upgrades

UPGRADE_SOCKET = "upgrade"
_LOOK_SECONDS = 5.0
_BASE = "http://outbox"
_UNANSWERED = (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError)
_encode = msgspec.json.Encoder().encode


class Served(msgspec.Struct, frozen=True, gc=False):
    """The outbox that a service serves; `run` is another one after each start of its program."""

    outbox: str
    run: str


@contextlib.asynccontextmanager
async def serve_upgrades(path: str | None, url: str, upgrades: Upgrades) -> AsyncIterator[None]:
    """Let `outbox upgrade` ask at `path`, for the service on the outbox at `url`.

    Without a path only SIGHUP can ask.
    """
    if path is None:
        yield
        return
    served = _encode(Served(_outbox_at(url), str(uuid.uuid4())))

    async def tell(_: web.Request) -> web.Response:
        return web.Response(body=served)

    async def upgrade(_: web.Request) -> web.Response:
        return web.Response(body=_encode(await asyncio.shield(upgrades.ask())))

    app = web.Application()
    app.add_routes([web.get("/", tell), web.post("/", upgrade)])
    async with serve_at(path, app):
        yield


async def find_services(url: str) -> dict[Path, Served]:
    """The services of this user, on this machine, on the outbox at `url`; by their sockets."""
    found = {}
    for path in sockets_of_services(UPGRADE_SOCKET):
        with contextlib.suppress(*_UNANSWERED):
            async with (
                asyncio.timeout(_LOOK_SECONDS),
                _client(path) as http,
                http.get(_BASE) as answer,
            ):
                found[path] = msgspec.json.decode(await answer.read(), type=Served)
    return {path: served for path, served in found.items() if served.outbox == _outbox_at(url)}


async def ask_for_upgrade(path: Path) -> Outcome | None:
    """What became of the upgrade; None when the service went away before it answered."""
    with contextlib.suppress(*_UNANSWERED):
        async with _client(path) as http, http.post(_BASE) as answer:
            return msgspec.json.decode(await answer.read(), type=Outcome)
    return None


def _client(path: Path) -> aiohttp.ClientSession:
    # Loading and migrating take as long as they take.
    unbounded = aiohttp.ClientTimeout(total=None)
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path)), timeout=unbounded)


def _outbox_at(url: str) -> str:
    """The outbox at `url`, however its address is written."""
    file = sqlite_file(url)
    return redacted_url(url) if file is None else str(Path(file).resolve())
