"""Signing in and out over HTTP, and who am I.

The development sign-in believes whatever it is told; it answers 404 except in development, and
there only to this machine itself unless DEV_LOGIN says otherwise.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from service.errors import CrossSiteRequestError, NotFoundError
from service.identity.sessions import Sessions
from service.identity.user import User
from service.web.body import JSON_REFUSALS, read_json
from service.web.cross_site import CrossSite
from service.web.openapi.endpoint import Access, Answer, Body, Endpoint
from service.web.peer import is_for_loopback, is_local

# One line of text that is not blank, in a pattern that Python and JSON Schema read alike.
_LINE = r"^(?!\s*(?![\s\S]))[^\x00-\x1f\x7f]+(?![\s\S])"
_Short = Annotated[str, Meta(pattern=_LINE, max_length=255)]
_DEV_LOGIN_EXAMPLE = {"email": "ada@example.com", "name": "Ada"}
_SESSION_EXAMPLE = {
    "user": {
        "id": "ada@example.com",
        "email": "ada@example.com",
        "name": "Ada",
        "organizationId": None,
        "emailVerified": True,
    }
}
_encode = msgspec.json.Encoder().encode


class DevLogin(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The body of the development sign-in. `id` defaults to the e-mail in lower case."""

    email: Annotated[str, Meta(pattern=r"^[^@\s]+@[^@\s]+(?![\s\S])", max_length=254)]
    name: _Short | None = None
    id: _Short | None = None
    organization_id: _Short | None = None


_dev_login = msgspec.json.Decoder(DevLogin)


class SessionUser(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A signed-in user as browsers see it."""

    id: str
    email: str | None
    name: str | None
    organization_id: str | None
    email_verified: bool


class SessionAnswer(msgspec.Struct, frozen=True, gc=False):
    """Who is signed in; `user` is null for nobody."""

    user: SessionUser | None


class SignIn:
    """The handlers under /auth.

    `development` allows the development sign-in to this machine; `dev_login_anywhere` widens it
    to every other one, and does nothing outside development.
    """

    def __init__(
        self,
        sessions: Sessions,
        cross_site: CrossSite,
        *,
        development: bool,
        dev_login_anywhere: bool = False,
    ) -> None:
        self._sessions = sessions
        self._cross_site = cross_site
        self._development = development
        self._dev_login_anywhere = dev_login_anywhere

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [
            web.post("/auth/dev-login", self.dev_login),
            web.post("/auth/logout", self.logout),
            web.get("/auth/session", self.session),
        ]

    def endpoints(self) -> list[Endpoint]:
        """What the API's description says."""
        return [
            Endpoint(
                method="POST",
                path="/auth/dev-login",
                name="devSignIn",
                tag="sign-in",
                summary="Sign in as anybody, in development only",
                access=Access.ANYBODY,
                body=Body(DevLogin, _DEV_LOGIN_EXAMPLE),
                answers={200: Answer("Signed in", SessionAnswer, _SESSION_EXAMPLE)},
                errors=(NotFoundError, CrossSiteRequestError, *JSON_REFUSALS),
            ),
            Endpoint(
                method="POST",
                path="/auth/logout",
                name="signOut",
                tag="sign-in",
                summary="Sign out",
                access=Access.ANYBODY,
                answers={200: Answer("Signed out", SessionAnswer, {"user": None})},
                errors=(CrossSiteRequestError,),
            ),
            Endpoint(
                method="GET",
                path="/auth/session",
                name="getSession",
                tag="sign-in",
                summary="Who is signed in",
                access=Access.ANYBODY,
                answers={200: Answer("Who is signed in", SessionAnswer, _SESSION_EXAMPLE)},
            ),
        ]

    async def dev_login(self, request: web.Request) -> web.Response:
        """Sign in as whoever the body names. The e-mail counts as verified."""
        if not self._dev_login_allowed(request):
            raise NotFoundError
        self._cross_site.check(request)
        body = await read_json(request, _dev_login)
        user = User(
            id=body.id or body.email.lower(),
            email=body.email,
            name=body.name,
            organization_id=body.organization_id,
            email_verified=True,
        )
        await self._sessions.sign_in(request, user)
        return _answer(user)

    async def logout(self, request: web.Request) -> web.Response:
        """Sign out: every session cookie that the request brought is removed."""
        self._cross_site.check(request)
        await self._sessions.sign_out(request)
        return _answer(None)

    async def session(self, request: web.Request) -> web.Response:
        """Who am I."""
        return _answer(await self._sessions.user(request))

    def _dev_login_allowed(self, request: web.Request) -> bool:
        if not self._development:
            return False
        return self._dev_login_anywhere or (is_local(request) and is_for_loopback(request))


def _answer(user: User | None) -> web.Response:
    known = None
    if user is not None:
        known = SessionUser(
            user.id, user.email, user.name, user.organization_id, user.email_verified
        )
    return web.Response(
        body=_encode(SessionAnswer(known)),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
