"""Sign-out over HTTP, and the signed-in user."""

from __future__ import annotations

import msgspec
from aiohttp import hdrs, web

from inngest_outbox.errors import (
    CrossSiteRequestError,
    InvalidFieldError,
    OutboxUnavailableError,
    ProviderUnavailableError,
)
from inngest_outbox.identity.sessions import Sessions
from inngest_outbox.identity.sign_in_attempt import own_path
from inngest_outbox.identity.user import User
from inngest_outbox.web.openapi.endpoint import Access, Answer, Endpoint, Parameter
from inngest_outbox.web.server.answers import json_answer
from inngest_outbox.web.server.cross_site import CrossSite

SESSION_EXAMPLE = {
    "user": {
        "id": "ada@example.com",
        "email": "ada@example.com",
        "name": "Ada",
        "organizationId": None,
        "emailVerified": True,
    }
}
_EVERYWHERE = Parameter(
    "everywhere", "`1` ends all sessions of the user that this service made.", {"enum": ["1"]}
)
_RETURN_TO = Parameter("returnTo", "A path of this service where a browser goes then.")
_SESSION_ERRORS = (ProviderUnavailableError, OutboxUnavailableError)


class SessionUser(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A signed-in user, as browsers see it."""

    id: str
    email: str | None
    name: str | None
    organization_id: str | None
    email_verified: bool


class SessionAnswer(msgspec.Struct, frozen=True, gc=False):
    """The signed-in user; `user` is null without a session."""

    user: SessionUser | None


class SignIn:
    """The handlers of sign-out and of the signed-in user."""

    def __init__(self, sessions: Sessions, cross_site: CrossSite) -> None:
        self._sessions = sessions
        self._cross_site = cross_site

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [
            web.post("/auth/logout", self.logout),
            web.get("/auth/session", self.session),
        ]

    def endpoints(self) -> list[Endpoint]:
        """The entries of the API's description."""
        return [
            Endpoint(
                method="POST",
                path="/auth/logout",
                name="signOut",
                tag="sign-in",
                summary="Sign out, here or everywhere",
                access=Access.ANYBODY,
                parameters=[_EVERYWHERE, _RETURN_TO],
                answers={
                    200: Answer("Signed out", SessionAnswer, {"user": None}),
                    303: Answer("Signed out; redirect to `returnTo`"),
                },
                errors=(CrossSiteRequestError, InvalidFieldError, *_SESSION_ERRORS),
            ),
            Endpoint(
                method="GET",
                path="/auth/session",
                name="getSession",
                tag="sign-in",
                summary="Who is signed in",
                access=Access.ANYBODY,
                answers={200: Answer("Who is signed in", SessionAnswer, SESSION_EXAMPLE)},
                errors=_SESSION_ERRORS,
            ),
        ]

    async def logout(self, request: web.Request) -> web.Response:
        """Sign out: remove every session cookie of the request.

        `everywhere=1` also ends the user's other sessions of this service. `returnTo` is the path
        of this service where a browser goes then.
        """
        self._cross_site.check(request)
        everywhere = request.query.getall("everywhere", [])
        if everywhere not in ([], ["1"]):
            raise InvalidFieldError("everywhere is 1 or not given.")
        await self._sessions.sign_out(request, everywhere=bool(everywhere))
        if "returnTo" in request.query:
            location = {hdrs.LOCATION: own_path(request.query["returnTo"])}
            return web.Response(status=303, headers=location)
        return session_answer(None)

    async def session(self, request: web.Request) -> web.Response:
        """The signed-in user."""
        return session_answer(await self._sessions.user(request))


def session_answer(user: User | None) -> web.Response:
    """The answer with the signed-in user."""
    known = None
    if user is not None:
        known = SessionUser(
            user.id, user.email, user.name, user.organization_id, user.email_verified
        )
    return json_answer(SessionAnswer(known))
