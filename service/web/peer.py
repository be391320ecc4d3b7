"""Where a request comes from: this machine, or elsewhere.

A reverse proxy on this machine makes every peer look local, so a request that says it was
forwarded never counts as local.
"""

from __future__ import annotations

import hmac
import ipaddress

from aiohttp import hdrs, web
from yarl import URL

from service.errors import MetricsTokenRequiredError

_FORWARDED = (hdrs.FORWARDED, hdrs.X_FORWARDED_FOR, hdrs.X_FORWARDED_HOST, "X-Real-IP")
_BEARER = "Bearer "


def is_local(request: web.Request) -> bool:
    """Whether the request was made on this machine and reached us without a proxy."""
    forwarded = any(name in request.headers for name in _FORWARDED)
    return not forwarded and _is_loopback(request.remote or "")


def is_for_loopback(request: web.Request) -> bool:
    """Whether the Host header names this machine as seen from itself.

    A page elsewhere that points its own name at 127.0.0.1 does not pass.
    """
    try:
        host = URL(f"http://{request.host}").host or ""
    except ValueError:
        return False
    return host == "localhost" or _is_loopback(host)


def check_metrics_access(request: web.Request, token: str | None) -> None:
    """Let local requests and bearers of `token` read the metrics; None means no token.

    Raises MetricsTokenRequiredError for anyone else.
    """
    if is_local(request):
        return
    given = request.headers.get(hdrs.AUTHORIZATION, "")
    if not token or not hmac.compare_digest(_bytes(given), _bytes(_BEARER + token)):
        raise MetricsTokenRequiredError


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
