"""Errors as pages for a person in a browser, with what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from aiohttp import hdrs, web
from markupsafe import Markup

from inngest_outbox.errors import (
    NotFoundError,
    OperatorRequiredError,
    SessionRequiredError,
    SignInFailedError,
)
from inngest_outbox.identity.sign_in_attempt import own_path
from inngest_outbox.web.pages.page import Pages
from inngest_outbox.web.server.errors import ErrorAnswer

LOGIN = "/auth/login"
_SIGN_IN_CODES = frozenset(
    {SessionRequiredError.code, OperatorRequiredError.code, SignInFailedError.code}
)
_TITLES = {
    SessionRequiredError.code: "Sign in",
    OperatorRequiredError.code: "For operators",
    SignInFailedError.code: "The sign-in failed",
    NotFoundError.code: "Nothing here",
}
_SIGN_IN_ADVICE = {
    NotFoundError.code: "This service has no identity provider: OIDC_ISSUER is not set.",
    OperatorRequiredError.code: "Sign in as an operator: OPERATOR_EMAILS names them.",
}
_AGAIN = "Open this address again in a moment."
_NO_SIGN_IN = "Sign in at your front end, then open this address again."
_DOCS = Markup('<p>The <a href="/docs">API\'s description</a> has every address.</p>')
_CONTENT = Markup("<p>{sentence}</p>{advice}<p><small>{status} {code}, request {id}</small></p>")
_PARAGRAPH = Markup("<p>{}</p>")
_LINK = Markup('<p><a href="{path}?returnTo={back}">Sign in</a></p>')

_decode = msgspec.json.Decoder(ErrorAnswer).decode


class ErrorPages:
    """Turns errors into pages. `sign_in_path` is None where the front end has the sign-in."""

    def __init__(self, pages: Pages, sign_in_path: str | None) -> None:
        self._pages = pages
        self._sign_in_path = sign_in_path

    def page(self, request: web.Request, answer: web.Response, request_id: str) -> web.Response:
        """The page for `answer`, with its status and headers."""
        body = answer.body
        error = _decode(body if isinstance(body, bytes) else b"")
        title = _TITLES.get(error.code, "This did not work")
        content = _CONTENT.format(
            sentence=error.error,
            advice=self._advice(request, answer.status, error.code),
            status=answer.status,
            code=error.code,
            id=request_id,
        )
        page = self._pages.page(title, content, status=answer.status)
        _take_over(page, answer.headers)
        return page

    def _advice(self, request: web.Request, status: int, code: str) -> Markup:
        if status == web.HTTPServiceUnavailable.status_code:
            return _PARAGRAPH.format(_AGAIN)
        if code in _SIGN_IN_CODES or request.path == LOGIN:
            return self._sign_in_advice(request, code)
        return _DOCS

    def _sign_in_advice(self, request: web.Request, code: str) -> Markup:
        about = _SIGN_IN_ADVICE.get(code)
        said = _PARAGRAPH.format(about) if about else Markup()
        if self._sign_in_path is None:
            return said + _PARAGRAPH.format(_NO_SIGN_IN)
        return said + _LINK.format(path=self._sign_in_path, back=_page_after(request))


def _page_after(request: web.Request) -> str:
    """The page to open after a sign-in: the one it was for, or the request's if it shows one."""
    if request.path == LOGIN:
        return quote(own_path(request.query.get("returnTo", "/docs")), safe="/")
    if request.path.startswith("/auth/"):
        return "/docs"
    return quote(request.path, safe="/") if request.method == hdrs.METH_GET else "/outbox"


def wants_page(request: web.Request) -> bool:
    """True for a browser that asks for a page."""
    return "text/html" in request.headers.get(hdrs.ACCEPT, "")


def _take_over(page: web.Response, headers: Mapping[str, str]) -> None:
    page.headers[hdrs.VARY] = hdrs.ACCEPT
    for name in (hdrs.RETRY_AFTER, hdrs.ALLOW):
        if name in headers:
            page.headers[name] = headers[name]
