"""Handlers to compare with: they do less, or the same without an outbox.

`/parse` only parses the JSON, `/sdk` awaits the Inngest SDK's send, `/direct` sends by one POST
with aiohttp. `/signed-in/session` parses too and reads an encrypted session cookie, which
`/signed-in/login` gives. Only what needs a session pays for its middleware.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import signal
import socket
import time

import aiohttp
import aiohttp_session
import inngest
import msgspec
import uvloop
from aiohttp import web
from aiohttp_session.cookie_storage import EncryptedCookieStorage

NAME = "documents/aws.index"


class Handlers:
    def __init__(self, sink: str, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._url = f"{sink}/e/key"
        self._inngest = inngest.Inngest(
            app_id="bench", event_key="key", event_api_base_url=sink, is_production=True
        )

    async def login(self, request: web.Request) -> web.Response:
        session = await aiohttp_session.new_session(request)
        session["user"] = {"id": "u-1", "email": "ada@example.com", "name": "Ada"}
        return _ok()

    async def parse(self, request: web.Request) -> web.Response:
        await request.json()
        return _ok()

    async def session(self, request: web.Request) -> web.Response:
        session = await aiohttp_session.get_session(request)
        if "user" not in session:
            raise web.HTTPUnauthorized
        await request.json()
        return _ok()

    async def sdk(self, request: web.Request) -> web.Response:
        body = await request.json()
        await self._inngest.send(inngest.Event(name=NAME, data=body))
        return _ok()

    async def direct(self, request: web.Request) -> web.Response:
        body = await request.json()
        event = {"name": NAME, "data": body, "ts": int(time.time() * 1000)}
        async with self._session.post(
            self._url,
            data=msgspec.json.encode([event]),
            headers={"Content-Type": "application/json"},
        ) as answer:
            await answer.read()
        return _ok()


def _ok() -> web.Response:
    return web.json_response({"status": "ok"})


def _app(handlers: Handlers) -> web.Application:
    app = web.Application()
    for name in ("parse", "sdk", "direct"):
        app.router.add_post(f"/{name}", getattr(handlers, name))
    storage = EncryptedCookieStorage(b"0123456789abcdef0123456789abcdef")
    signed_in = web.Application(middlewares=[aiohttp_session.session_middleware(storage)])
    signed_in.router.add_post("/login", handlers.login)
    signed_in.router.add_post("/session", handlers.session)
    app.add_subapp("/signed-in/", signed_in)
    return app


async def _serve(sink: str, listening: socket.socket, *, is_first: bool) -> None:
    """Handle until a signal. Of several processes the first says where they listen."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with aiohttp.ClientSession() as session:
        handlers = Handlers(sink, session)
        runner = web.AppRunner(_app(handlers), access_log=None)
        await runner.setup()
        await web.SockSite(runner, listening, backlog=1024).start()
        if is_first:
            print(f"Listening on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        await stop.wait()
        await runner.cleanup()


def _run(sink: str, listening: socket.socket, *, is_first: bool = False) -> None:
    uvloop.run(_serve(sink, listening, is_first=is_first))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--sink", required=True)
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as shared:
        for _ in range(given.processes - 1):
            forked = multiprocessing.get_context("fork")
            forked.Process(target=_run, args=(given.sink, shared), daemon=True).start()
        _run(given.sink, shared, is_first=True)
