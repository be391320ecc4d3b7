"""Answers of the service, each of which is judged as it is read."""

from __future__ import annotations

from typing import Any

import aiohttp

from tests.support.html_page import judge_page

_ALWAYS = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Server": "outbox",
}


class JudgedAnswer(aiohttp.ClientResponse):
    """An answer that has the headers of every answer; what is HTML is a whole and true page."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        await super().start(connection)
        own = self.headers
        assert {name: own.get(name) for name in _ALWAYS} == _ALWAYS
        assert own["X-Request-Id"]
        assert own["Cache-Control"]
        is_page = self.content_type == "text/html" and self.url.path != "/docs"
        assert own["Referrer-Policy"] == ("same-origin" if is_page else "no-referrer")
        policy = own["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        forms = "'self'" if is_page else "'none'"
        locked = f"base-uri 'none'; form-action {forms}; frame-ancestors 'none'"
        assert policy.endswith(locked)
        return self

    async def read(self) -> bytes:
        body = await super().read()
        if self.content_type == "text/html" and self.url.path != "/docs":
            assert self.charset == "utf-8"
            policy = self.headers["Content-Security-Policy"]
            judge_page(body.decode(), self.url.path, policy)
        return body
