"""The headers that limit what browsers do with an answer.

Every answer gets them; an answer that sets one itself keeps its own. The service's pages name their
inline scripts and styles by digest, so that nothing else runs in them.
"""

from __future__ import annotations

import base64
import hashlib

from aiohttp import hdrs, web

_CSP = "Content-Security-Policy"
_LOCKED = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_OWN_FORMS = _LOCKED.replace("form-action 'none'", "form-action 'self'")
_HEADERS = {
    _CSP: f"default-src 'none'; {_LOCKED}",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    hdrs.CACHE_CONTROL: "no-store",
}
# aiohttp's own value names its version and Python's.
SERVER = "outbox"
_HTTPS_HEADERS = {**_HEADERS, "Strict-Transport-Security": "max-age=31536000"}


def security_headers(*, secure: bool) -> dict[str, str]:
    """The headers of every answer. With `secure`, browsers must stay on https."""
    return _HTTPS_HEADERS if secure else _HEADERS


def page_policy(*inline: str, files: bool = False, forms: bool = False) -> str:
    """The Content-Security-Policy of a page with these inline scripts and styles.

    With `files` it may load scripts and styles of the service, with `forms` post forms to it.
    """
    digests = [f"'sha256-{_digest(text)}'" for text in inline]
    allowed = " ".join((["'self'"] if files else []) + digests) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src {allowed}; "
        f"connect-src 'self'; img-src 'self' data:; {_OWN_FORMS if forms else _LOCKED}"
    )


def install_security_headers(app: web.Application, *, secure: bool) -> None:
    """Put the headers on every answer of `app`, errors included."""
    headers = security_headers(secure=secure)

    async def add(request: web.Request, response: web.StreamResponse) -> None:
        del request
        own = response.headers
        own[hdrs.SERVER] = SERVER
        if hdrs.CACHE_CONTROL in own or _CSP in own:
            for name, value in headers.items():
                own.setdefault(name, value)
        else:
            own.extend(headers)  # one call in C instead of one for each header

    app.on_response_prepare.append(add)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
