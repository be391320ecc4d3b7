"""A front end in miniature: a page, the built client's modules, and a proxy to the service."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import aiohttp
from aiohttp import web

from tests.support.free_port import free_port

PAGE = """<!doctype html><meta charset="utf-8"><title>front end</title>
<button id="post">post</button> <output id="seen"></output>
<script type="module">
import { OutboxClient } from "/client/index.js";
const seen = document.querySelector("#seen");
window.outbox = new OutboxClient({ account: "u-1", retry: { maxDelayMs: 300 } });
window.answers = [];
document.querySelector("#post").onclick = async () => {
  const { eventId } = await outbox.submit({ documentName: "example" });
  answers.push(eventId);
};
window.follow = async (id) => {
  for await (const event of outbox.watch(id)) seen.textContent = event.run?.status ?? event.state;
};
seen.textContent = "ready";
</script>"""
_PASSED_ON = ("Content-Type", "Cookie", "Idempotency-Key", "If-None-Match", "Origin", "Accept")
_PASSED_BACK = ("Content-Type", "ETag", "Idempotent-Replayed", "Location", "Retry-After")


class FrontServer:
    """Serves at one port for good; `cut` refuses every connection until `mend`.

    `service_url` names the service at the moment of a request, so that it may be restarted.
    """

    def __init__(self, modules: Path, service_url: str) -> None:
        self.service_url = service_url
        app = web.Application()
        app.router.add_get("/", self._page)
        app.router.add_static("/client", modules)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._port = free_port()
        self._site: web.TCPSite | None = None

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(auto_decompress=False)
        await self._runner.setup()
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._http.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def cut(self) -> None:
        """Refuse connections and end those that are open."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
        server = self._runner.server
        if server is not None:
            for connection in server.connections:
                connection.force_close()

    async def mend(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await self._site.start()

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        headers["X-Forwarded-Host"] = request.headers.get("X-Forwarded-Host", request.host)
        url = f"{self.service_url}{request.path_qs}"
        body = await request.read()
        try:
            async with self._http.request(
                request.method, url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                passed = {
                    name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers
                }
                response = web.StreamResponse(status=answer.status, headers=passed)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                return response
        except aiohttp.ClientConnectionError:
            return web.Response(status=502, text="<h1>Bad gateway</h1>", content_type="text/html")
