"""Whether a request comes from a program on this machine.

A reverse proxy on this machine makes every peer look local, and a page elsewhere can point its own
name at 127.0.0.1. So a local request has a loopback peer, a loopback Host and no proxy header.
"""

from __future__ import annotations

import hmac
import re

from aiohttp import hdrs, web

from service.errors import MetricsTokenRequiredError
from service.web.server.proxies import is_loopback_address, was_forwarded

_BEARER = "bearer"
# Stricter than a URL's parser, which finds a host in `x@localhost` and in `localhost#.x` too.
_is_host = re.compile(
    r"(localhost|[\d.]+|\[[\da-f:.]+\])(?::\d{1,5})?", re.ASCII | re.IGNORECASE
).fullmatch


def is_local(request: web.Request) -> bool:
    """Whether a program on this machine made the request, without a proxy, to a loopback name."""
    return (
        is_loopback_address(request.remote or "")
        and is_for_loopback(request)
        and not was_forwarded(request)
    )


def is_for_loopback(request: web.Request) -> bool:
    """Whether the Host header is a loopback name."""
    found = _is_host(request.host)
    if found is None:
        return False
    host = found.group(1).lower()
    return host == "localhost" or is_loopback_address(host.strip("[]"))


def check_metrics_access(request: web.Request, token: str | None) -> None:
    """Raise MetricsTokenRequiredError unless the request is local or has `token`.

    With `token` None only local requests pass.
    """
    if is_local(request):
        return
    scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    is_given = hmac.compare_digest(_bytes(given), _bytes(token or ""))
    if not token or not is_given or scheme.lower() != _BEARER:
        raise MetricsTokenRequiredError


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
