"""The development sign-in: signs anybody in as anybody.

It answers 404 except in development. There it answers only this machine, unless DEV_LOGIN widens
it.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta

from inngest_outbox.errors import (
    CrossSiteRequestError,
    InvalidFieldError,
    NotFoundError,
    OutboxUnavailableError,
)
from inngest_outbox.identity.sessions import Sessions
from inngest_outbox.identity.sign_in_attempt import own_path
from inngest_outbox.identity.user import User
from inngest_outbox.web.openapi.endpoint import Access, Answer, Body, Endpoint, Parameter
from inngest_outbox.web.pages.error_pages import wants_page
from inngest_outbox.web.pages.page import Pages
from inngest_outbox.web.server.body import JSON_REFUSALS, MAX_BODY_BYTES, read_body, read_json
from inngest_outbox.web.server.cross_site import CrossSite
from inngest_outbox.web.server.proxies import is_for_loopback, is_local
from inngest_outbox.web.signin.sign_in import SESSION_EXAMPLE, SessionAnswer, session_answer

_PATH = "/auth/dev-login"
_FORM = "application/x-www-form-urlencoded"
_RETURN_TO = "returnTo"
# One line of text that is not blank. Python and JSON Schema read this pattern alike.
_LINE = r"^(?!\s*(?![\s\S]))[^\x00-\x1f\x7f]+(?![\s\S])"
_Short = Annotated[str, Meta(pattern=_LINE, max_length=255)]
_EXAMPLE = {"email": "ada@example.com", "name": "Ada"}


class DevLogin(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The body of the development sign-in. `id` defaults to the e-mail in lower case."""

    email: Annotated[str, Meta(pattern=r"^[^@\s]+@[^@\s]+(?![\s\S])", max_length=254)]
    name: _Short | None = None
    id: _Short | None = None
    organization_id: _Short | None = None


_dev_login = msgspec.json.Decoder(DevLogin)


class DevSignIn:
    """The handlers of the development sign-in: JSON for programs, a form for browsers.

    `issuer` is the issuer of its ids; None forbids the sign-in. It answers programs on this
    machine. `anywhere` also admits requests from elsewhere that name a loopback Host: a published
    port or a tunnel does, a page of another site can't.
    """

    def __init__(
        self,
        sessions: Sessions,
        cross_site: CrossSite,
        pages: Pages,
        *,
        issuer: str | None,
        anywhere: bool = False,
    ) -> None:
        self._sessions = sessions
        self._cross_site = cross_site
        self._pages = pages
        self._issuer = issuer
        self._anywhere = anywhere

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.get(_PATH, self.form), web.post(_PATH, self.sign_in)]

    def endpoints(self) -> list[Endpoint]:
        """The entries of the API's description."""
        return [
            Endpoint(
                method="GET",
                path=_PATH,
                name="getDevSignInForm",
                tag="sign-in",
                summary="A form for the development sign-in",
                access=Access.ANYBODY,
                parameters=[Parameter(_RETURN_TO, "A path of this service to go to afterwards.")],
                answers={200: Answer("The form", {"type": "string"}, content_type="text/html")},
                errors=(NotFoundError,),
            ),
            Endpoint(
                method="POST",
                path=_PATH,
                name="devSignIn",
                tag="sign-in",
                summary="Sign in as anybody, in development only",
                access=Access.ANYBODY,
                body=Body(DevLogin, _EXAMPLE),
                answers={
                    200: Answer("Signed in", SessionAnswer, SESSION_EXAMPLE),
                    303: Answer("Signed in with the form"),
                },
                errors=(
                    NotFoundError,
                    CrossSiteRequestError,
                    *JSON_REFUSALS,
                    OutboxUnavailableError,
                ),
            ),
        ]

    async def form(self, request: web.Request) -> web.Response:
        """The form."""
        self._checked_issuer(request)
        return_to = own_path(request.query.get(_RETURN_TO, "/docs"))
        return self._pages.render("dev_login.html", "Sign in", return_to=return_to)

    async def sign_in(self, request: web.Request) -> web.Response:
        """Sign in as the user in the body. The e-mail counts as verified."""
        issuer = self._checked_issuer(request)
        self._cross_site.check(request)
        if request.content_type != _FORM or not wants_page(request):
            user = _user(issuer, await read_json(request, _dev_login))
            await self._sessions.sign_in(request, user)
            return session_answer(user)
        body = await read_body(request, max_bytes=MAX_BODY_BYTES)
        given = dict(parse_qsl(body.decode(errors="replace")))
        return_to = own_path(given.pop(_RETURN_TO, "/docs"))
        await self._sessions.sign_in(request, _user(issuer, _from_form(given)))
        return web.Response(status=303, headers={hdrs.LOCATION: return_to})

    def _checked_issuer(self, request: web.Request) -> str:
        is_near = is_for_loopback(request) if self._anywhere else is_local(request)
        if self._issuer is None or not is_near:
            raise NotFoundError
        return self._issuer


def _user(issuer: str, body: DevLogin) -> User:
    given = (body.id, body.email, body.name, body.organization_id)
    if not all(one is None or one.isprintable() for one in given):
        raise InvalidFieldError("A field has a character that can't be shown.")
    return User(
        issuer=issuer,
        id=body.id or body.email.lower(),
        email=body.email,
        name=body.name,
        organization_id=body.organization_id,
        email_verified=True,
    )


def _from_form(given: dict[str, str]) -> DevLogin:
    try:
        return msgspec.convert(given, DevLogin)
    except msgspec.ValidationError as error:
        raise InvalidFieldError("The form needs an e-mail address.") from error
