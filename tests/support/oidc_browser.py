"""A browser that signs in through the service at a provider, and what it sees of a refusal."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from aiohttp import ClientSession, CookieJar, web

from inngest_outbox.errors import RefusedError


@web.middleware
async def refusals(request, handler):
    """Stands for the service's own middleware: a refusal is told by its code."""
    try:
        return await handler(request)
    except RefusedError as refused:
        return web.json_response({"code": refused.code}, status=400)


class Browser:
    def __init__(self, service) -> None:
        self._service = service
        self.http = ClientSession(cookie_jar=CookieJar(unsafe=True))

    async def begin(self, return_to: str | None = None) -> dict[str, str]:
        params = {} if return_to is None else {"returnTo": return_to}
        answer = await self.get("/auth/login", **params)
        assert answer.status == 302, await answer.text()
        return dict(parse_qsl(urlsplit(answer.headers["Location"]).query))

    async def finish(self, provider, asked, **changed):
        brought = {
            "code": provider.authorize(asked),
            "state": asked["state"],
            "iss": provider.issuer,
            **changed,
        }
        brought = {name: value for name, value in brought.items() if value is not ...}
        return await self.get("/auth/callback", **brought)

    async def get(self, path: str, **params: str):
        return await self.http.get(
            self._service.make_url(path), params=params, allow_redirects=False
        )

    async def user(self):
        return (await (await self.get("/auth/session")).json())["user"]


async def refused(browser, answer, code: str = "sign_in_failed") -> None:
    assert await answer.json() == {"code": code}
    assert await browser.user() is None
