"""The peer of a request: a reverse proxy, a program on this machine, or a client elsewhere.

Proxy headers are believed only from the addresses in TRUSTED_PROXIES. From anyone else they only
show that the request did not come straight from a client. A reverse proxy on this machine makes
every peer look local, and a page elsewhere can point its own name at 127.0.0.1. So a local request
has a loopback peer, a loopback Host and no proxy header.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable

from aiohttp import hdrs, web

from inngest_outbox.errors import MalformedRequestError, MetricsTokenRequiredError

_LOOPBACK = ("127.0.0.0/8", "::1/128")
_PREFIX = "x-forwarded"
_SCHEMES = ("http", "https")
_BEARER = "bearer"
_is_host = re.compile(r"([\w.-]+|\[[\da-fA-F:.]+\])(:\d{1,5})?", re.ASCII).fullmatch
# Stricter than a URL's parser, which finds a host in `x@localhost` and in `localhost#.x` too.
_is_loopback_host = re.compile(
    r"(localhost|[\d.]+|\[[\da-f:.]+\])(?::\d{1,5})?", re.ASCII | re.IGNORECASE
).fullmatch
_ADDED = frozenset(
    {
        "cf-connecting-ip",
        "cf-ray",
        "client-ip",
        "fastly-client-ip",
        "fly-client-ip",
        "forwarded",
        "true-client-ip",
        "via",
        "x-azure-clientip",
        "x-azure-ref",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-envoy-external-address",
        "x-original-forwarded-for",
        "x-original-host",
        "x-original-url",
        "x-real-ip",
        "x-rewrite-url",
    }
)


class Proxies:
    """The trusted proxies, as addresses or networks. None trusts those on this machine."""

    def __init__(self, trusted: Iterable[str] | None = None) -> None:
        self._networks = [ipaddress.ip_network(one) for one in trusted or _LOOPBACK]

    def said(self, request: web.Request, header: str) -> str | None:
        """The first value of `header` when a trusted proxy sent the request, else None."""
        value = request.headers.get(header)
        if value is None or not self.is_trusted(request.remote or ""):
            return None
        return value.partition(",")[0].strip()

    def host(self, request: web.Request) -> str:
        """The host and port that the client asked for."""
        return self.said(request, hdrs.X_FORWARDED_HOST) or request.host

    def scheme(self, request: web.Request) -> str:
        """The scheme that the client used: http or https."""
        said = (self.said(request, hdrs.X_FORWARDED_PROTO) or "").lower()
        return said if said in _SCHEMES else request.scheme

    def origin(self, request: web.Request) -> str:
        """The address that the client used, without a path.

        Raises MalformedRequestError for a host that is none.
        """
        host = self.host(request)
        if not _is_host(host):
            raise MalformedRequestError
        return f"{self.scheme(request)}://{host}"

    def is_trusted(self, address: str) -> bool:
        """True for the address of a trusted proxy."""
        found = _address(address)
        return found is not None and any(found in network for network in self._networks)


def is_local(request: web.Request) -> bool:
    """True for a program on this machine that asked a loopback name without a proxy."""
    return (
        is_loopback_address(request.remote or "")
        and is_for_loopback(request)
        and not was_forwarded(request)
    )


def is_for_loopback(request: web.Request) -> bool:
    """True where the Host header is a loopback name."""
    found = _is_loopback_host(request.host)
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


proxies_key = web.AppKey("proxies", Proxies)


def was_forwarded(request: web.Request) -> bool:
    """True where a header shows that the request passed a proxy."""
    return any(
        name.lower() in _ADDED or name.lower().startswith(_PREFIX) for name in request.headers
    )


def is_loopback_address(address: str) -> bool:
    """True for a loopback address."""
    found = _address(address)
    return found is not None and found.is_loopback


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
