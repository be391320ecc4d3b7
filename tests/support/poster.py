"""A user of the API over HTTP, with cookies; the form of each answer is checked."""

from __future__ import annotations

from typing import Any

import aiohttp

GOOD = {"documentName": "example"}


class Poster:
    """A browser of one user."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        self.headers: Any = {}

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
        async with self.http.request(
            method, self.url + path, allow_redirects=False, **options
        ) as answer:
            self.headers = answer.headers
            assert answer.headers["X-Request-Id"]
            if answer.status == 204:
                return 204, {}
            assert answer.content_type == "application/json"
            return answer.status, await answer.json()

    async def sign_in(self, user_id: str, **more: str) -> None:
        body = {"email": f"{user_id}@example.com", "id": user_id, **more}
        assert (await self.ask("POST", "/auth/dev-login", json=body))[0] == 200

    async def post(self, body: object = GOOD, **headers: str) -> tuple[int, dict[str, Any]]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask("POST", "/api/route", json=body, headers=named)

    async def refused(self, **options: Any) -> tuple[int, str]:
        """The status and code of a failure, whose form is checked."""
        status, body = await self.ask("POST", "/api/route", **options)
        assert status >= 400
        assert set(body) == {"status", "code", "error"}
        assert body["status"] == "error"
        assert " " in body["error"]
        return status, body["code"]
