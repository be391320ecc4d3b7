"""Which requests come from a program on this machine, and who may read the metrics."""

from __future__ import annotations

from unittest import mock

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from inngest_outbox.errors import MalformedRequestError, MetricsTokenRequiredError
from inngest_outbox.web.server.connection import peer_of
from inngest_outbox.web.server.proxies import Proxies, check_metrics_access, is_local

TOKEN = "metrics-token"
FORWARDED = """
    Via Forwarded X-Forwarded X-Forwarded-Proto X-Forwarded-For X-Forwarded-Anything X-Real-IP
    X-Original-URL X-Original-Host X-Original-Forwarded-For X-Rewrite-URL
    Client-IP X-Client-IP True-Client-IP X-Cluster-Client-IP X-Envoy-External-Address
    CF-Connecting-IP CF-Ray Fastly-Client-IP Fly-Client-IP X-Azure-ClientIP X-Azure-Ref
"""
HOSTS = [
    "evil@localhost",
    "localhost#.evil.example",
    "localhost?.evil",
    "localhost/.evil",
    "\uff4cocalhost",
    "localhost.",
    "[::1%eth0]",
    "127.0.0.1:99999999",
    "localhost:80:80",
    "evil.example",
    "evil.example:3000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "[::2]:3000",
    "::1:bad]",
    "10.0.0.7",
    "0.0.0.0",
    "127.0.0.1.9",
    "",
]


def request(remote: str | None = "127.0.0.1", **headers: str):
    named = {"Host": "localhost:3000", **headers}
    return make_mocked_request("GET", "/", headers=named).clone(remote=remote)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:1", "127.8.8.8", "[::FFFF:127.0.0.1]"],
)
@pytest.mark.parametrize("remote", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_a_program_on_this_machine_is_local(host, remote):
    assert is_local(request(remote, Host=host))


@pytest.mark.parametrize("header", FORWARDED.split())
def test_what_a_proxy_forwards_is_not(header):
    assert not is_local(request(**{header: ""}))


@pytest.mark.parametrize("host", HOSTS)
def test_a_page_that_points_a_name_of_its_own_here_is_not(host):
    assert not is_local(request(Host=host))
    with pytest.raises(MetricsTokenRequiredError):
        check_metrics_access(request(Host=host), None)


@pytest.mark.parametrize("remote", ["10.0.0.7", "::2", "", "localhost", None])
def test_another_machine_is_not(remote):
    asked = request(remote)
    assert asked.remote == remote
    assert not is_local(asked)


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        (("10.0.0.7", 80), "10.0.0.7"),
        (("fd00::7", 80, 0, 0), "fd00::7"),
        ("/run/a.sock", ""),
        (None, ""),
    ],
)
def test_a_connection_counts_for_the_address_of_its_peer(name, peer):
    assert peer_of(mock.Mock(**{"get_extra_info.return_value": name})) == peer


@pytest.mark.parametrize(
    ("headers", "origin"),
    [
        ({}, "http://localhost:3000"),
        ({"Host": "[::1]:80"}, "http://[::1]:80"),
        ({"X-Forwarded-Proto": "HTTPS"}, "https://localhost:3000"),
        ({"X-Forwarded-Proto": "gopher"}, "http://localhost:3000"),
        ({"Host": "[FD00::A]"}, "http://[FD00::A]"),
        (
            {"X-Forwarded-Host": "app.example.com, inner", "X-Forwarded-Proto": "https, http"},
            "https://app.example.com",
        ),
    ],
)
def test_a_proxy_says_which_origin_the_client_used(headers, origin):
    named = {"Host": "localhost:3000", **headers}
    twice = CIMultiDict([*named.items(), *((name, "b") for name in headers if name != "Host")])
    asked = make_mocked_request("GET", "/", headers=twice)
    assert Proxies().origin(asked.clone(remote="127.0.0.1")) == origin
    assert Proxies().origin(asked.clone(remote="10.0.0.7")) == f"http://{named['Host']}"


@pytest.mark.parametrize("host", ["", "a b", "a/b", "user@a", "a:", "a:123456", "a#b", "\xe4.b"])
def test_a_host_that_is_none_has_no_origin(host):
    for header in ("Host", "X-Forwarded-Host"):
        if host or header == "Host":
            with pytest.raises(MalformedRequestError):
                Proxies().origin(request(**{header: host}))


def ask(peer: str, token: str | None, **headers: str) -> None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = make_mocked_request("GET", "/metrics", headers=named)
    check_metrics_access(asked.clone(remote=peer), token)


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_this_machine_needs_no_token_for_the_metrics(peer, token):
    ask(peer, token)
    ask(peer, token, Authorization="Bearer wrong")


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.7", "203.0.113.9", "2001:db8::1"])
def test_the_token_opens_from_anywhere_through_any_proxy(peer):
    ask(peer, TOKEN, Authorization=f"Bearer {TOKEN}", X_Forwarded_For="203.0.113.9")
    ask(peer, TOKEN, Authorization=f"bearer {TOKEN}")


@pytest.mark.parametrize(
    ("peer", "token", "headers"),
    [
        ("10.0.0.7", None, {}),
        ("10.0.0.7", TOKEN, {}),
        ("::ffff:10.0.0.7", TOKEN, {}),
        ("not an address", None, {}),
        ("10.0.0.7", None, {"Authorization": "Bearer "}),
        ("10.0.0.7", "", {"Authorization": "Bearer "}),
        ("10.0.0.7", TOKEN, {"Authorization": "Bearer "}),
        ("10.0.0.7", TOKEN, {"Authorization": f"Bearer {TOKEN[:-1]}"}),
        ("10.0.0.7", TOKEN, {"Authorization": "Bearer wrong"}),
        ("10.0.0.7", TOKEN, {"Authorization": TOKEN}),
        ("10.0.0.7", TOKEN, {"Authorization": f"Basic {TOKEN}"}),
        ("10.0.0.7", TOKEN, {"Authorization": "Bearer \u20ac"}),
        ("127.0.0.1", None, {"X_Forwarded_For": "127.0.0.1"}),
        ("127.0.0.1", TOKEN, {"Forwarded": "for=127.0.0.1"}),
        ("127.0.0.1", TOKEN, {"X_Real_IP": "203.0.113.9"}),
    ],
)
def test_anyone_else_may_not_read_the_metrics(peer, token, headers):
    with pytest.raises(MetricsTokenRequiredError):
        ask(peer, token, **headers)
