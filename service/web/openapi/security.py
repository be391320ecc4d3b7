"""How a request is authenticated, for the API's description."""

from __future__ import annotations

from typing import Any

from service.web.openapi.endpoint import Access

_SESSION = "session"
_NEXT_AUTH = "nextAuth"
_AUTH_JS = "authJs"
_BEARER = "userToken"
_EVENT_KEY = "eventKey"
_METRICS = "metricsToken"


def _cookie(name: str, text: str) -> dict[str, Any]:
    return {"type": "apiKey", "in": "cookie", "name": name, "description": text}


def _bearer(text: str) -> dict[str, Any]:
    return {"type": "http", "scheme": "bearer", "description": text}


SECURITY_SCHEMES: dict[str, Any] = {
    _SESSION: _cookie("outbox_session", "A sign-in at this service; `__Host-` in production."),
    _NEXT_AUTH: _cookie("next-auth.session-token", "A sign-in of next-auth 4."),
    _AUTH_JS: _cookie("authjs.session-token", "A sign-in of Auth.js 5."),
    _BEARER: _bearer("A token of the issuer that JWT_ISSUER names."),
    _EVENT_KEY: _bearer("One of the keys in OUTBOX_EVENT_KEYS."),
    _METRICS: _bearer("METRICS_TOKEN. Requests from the same machine need none."),
}
_USERS: list[dict[str, list[str]]] = [
    {name: []} for name in (_SESSION, _NEXT_AUTH, _AUTH_JS, _BEARER)
]
_REQUIREMENTS: dict[Access, list[dict[str, list[str]]]] = {
    Access.ANYBODY: [],
    Access.USER: _USERS,
    Access.OWNER: [*_USERS, {_EVENT_KEY: []}],
    Access.OPERATOR: _USERS,
    Access.EVENT_KEY: [{_EVENT_KEY: []}],
    Access.METRICS: [{_METRICS: []}, {}],
}


def requirements(access: Access) -> list[dict[str, list[str]]]:
    """The `security` of an endpoint: one of its entries is enough; without entries it is open."""
    return _REQUIREMENTS[access]
