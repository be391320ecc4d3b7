"""Requests from other sites: the table of what passes."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from service.errors import CrossSiteRequestError
from service.web.server.cross_site import CrossSite
from service.web.server.proxies import Proxies

FRONT = "https://front.example.com"
HOST = "app.example.com"

PASSES = [
    {},
    {"Origin": "https://app.example.com"},
    {"Origin": "http://app.example.com"},
    {"Origin": "https://app.example.com:443"},
    {"Origin": "https://APP.example.com"},
    {"Origin": "https://app.example.com", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": FRONT},
    {"Origin": FRONT, "Sec-Fetch-Site": "cross-site"},
    {"Origin": FRONT, "Sec-Fetch-Site": "same-site"},
    {"Origin": "http://app.example.com:8080", "Host": "app.example.com:8080"},
    {"Origin": "https://www.example.com", "X-Forwarded-Host": "www.example.com"},
    {"Origin": "https://www.example.com", "X-Forwarded-Host": "www.example.com, inner"},
    {"Origin": "http://[::1]:3000", "Host": "[::1]:3000"},
]
FAILS = [
    {"Origin": "https://evil.example"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "https://other.example.com", "Sec-Fetch-Site": "same-site"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "https://"},
    {"Origin": "app.example.com"},
    {"Origin": "file://app.example.com"},
    {"Origin": "chrome-extension://app.example.com"},
    {"Origin": "https://app.example.com.evil.example"},
    {"Origin": "https://evil.example/app.example.com"},
    {"Origin": "https://app.example.com:8443"},
    {"Origin": "https://user@app.example.com"},
    {"Origin": "http://app.example.com:443"},
    {"Origin": "https://front.example.com.evil.example"},
    {"Origin": "http://front.example.com"},
    {"Origin": "https://app.example.com", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "https://app.example.com", "Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "SAME-ORIGIN "},
    {"Sec-Fetch-Site": ""},
    {"Origin": "https://evil.example", "X-Forwarded-Host": ""},
    {"Origin": "https://evil.example", "X-Forwarded-Host": "www.example.com"},
]


def ask(
    method: str,
    headers: dict[str, str],
    *,
    secure: bool = False,
    remote: str = "127.0.0.1",
    trusted: tuple[str, ...] = (),
) -> None:
    request = make_mocked_request(method, "/", headers={"Host": HOST, "Cookie": "x=y", **headers})
    CrossSite([FRONT], secure=secure, proxies=Proxies(trusted)).check(request.clone(remote=remote))


@pytest.mark.parametrize("headers", PASSES, ids=str)
def test_a_request_of_our_own_or_of_an_allowed_origin_passes(headers):
    ask("POST", headers)


@pytest.mark.parametrize("headers", FAILS, ids=str)
def test_a_request_that_another_site_caused_is_refused(headers):
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        with pytest.raises(CrossSiteRequestError):
            ask(method, headers)
    ask("GET", headers)  # reading is left to the browser's own rules


HTTP = {"Origin": "http://app.example.com"}
PROXIED = {"Origin": "https://www.example.com", "X-Forwarded-Host": "www.example.com"}


def test_where_clients_use_https_an_http_origin_is_another_site():
    ask("POST", {"Origin": "https://app.example.com"}, secure=True)
    with pytest.raises(CrossSiteRequestError):
        ask("POST", HTTP, secure=True)
    with pytest.raises(CrossSiteRequestError):
        ask("POST", {**HTTP, "X-Forwarded-Proto": "https"})


def test_a_forwarded_host_counts_from_trusted_proxies_only():
    ask("POST", PROXIED, remote="10.0.0.9", trusted=("10.0.0.0/24", "fd00::/8"))
    ask("POST", PROXIED, remote="fd00::9", trusted=("10.0.0.0/24", "fd00::/8"))
    ask("POST", PROXIED, remote="::ffff:127.0.0.1")
    for remote, trusted in (
        ("10.0.0.9", ()),
        ("127.0.0.1", ("10.0.0.0/24",)),
        ("10.0.1.9", ("10.0.0.0/24",)),
        ("", ("10.0.0.0/24",)),
    ):
        with pytest.raises(CrossSiteRequestError):
            ask("POST", PROXIED, remote=remote, trusted=trusted)
