"""Who may read the metrics."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from service.errors import MetricsTokenRequiredError
from service.web.server.proxies import check_metrics_access

TOKEN = "metrics-token"


def ask(peer: str, token: str | None, **headers: str) -> None:
    request = make_mocked_request(
        "GET", "/metrics", headers={name.replace("_", "-"): v for name, v in headers.items()}
    )
    check_metrics_access(request.clone(remote=peer), token)


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_this_machine_needs_no_token(peer, token):
    ask(peer, token)


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
        ("", None, {}),
        ("not an address", None, {}),
        ("10.0.0.7", None, {"Authorization": "Bearer "}),
        ("10.0.0.7", "", {"Authorization": "Bearer "}),
        ("10.0.0.7", TOKEN, {"Authorization": "Bearer wrong"}),
        ("10.0.0.7", TOKEN, {"Authorization": TOKEN}),
        ("10.0.0.7", TOKEN, {"Authorization": f"Basic {TOKEN}"}),
        ("10.0.0.7", TOKEN, {"Authorization": "Bearer \u20ac"}),
        ("127.0.0.1", None, {"X_Forwarded_For": "127.0.0.1"}),
        ("127.0.0.1", TOKEN, {"Forwarded": "for=127.0.0.1"}),
        ("127.0.0.1", TOKEN, {"X_Real_IP": "203.0.113.9"}),
    ],
)
def test_anyone_else_is_refused(peer, token, headers):
    with pytest.raises(MetricsTokenRequiredError):
        ask(peer, token, **headers)
