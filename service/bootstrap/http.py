"""HTTP clients for the service's neighbours."""

from __future__ import annotations

import aiohttp


def make_http(*, limit: int) -> aiohttp.ClientSession:
    """A client of its own; proxies named in the environment are not for these neighbours."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limit),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )
