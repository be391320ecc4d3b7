"""A browser without pages, which keeps cookies, signs in and posts; and what arrives of it."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from service.dev.fake_inngest.server import FakeInngest


class Browser:
    def __init__(self, url: str) -> None:
        self.url = url
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self.http.request(
            method, self.url + path, allow_redirects=False, **options
        ) as answer:
            body = await answer.text()
            self.headers = answer.headers
            return answer.status, json.loads(body) if body else None

    async def sign_in(self, user_id: str, **more: str) -> None:
        body = {"email": f"{user_id}@example.com", "id": user_id, **more}
        status, _ = await self.ask("POST", "/auth/dev-login", json=body)
        assert status == 200

    async def post(self, **options: Any) -> tuple[int, Any]:
        return await self.ask("POST", "/api/route", json={"documentName": "example"}, **options)


async def arrived(inngest: FakeInngest, accepted: dict[str, str]) -> dict[str, Any]:
    arrival = await inngest.ledger.wait_for_id(accepted["eventId"])
    assert arrival is not None
    return json.loads(arrival.event)
