"""Who sees and changes what, asked of the running service: owners, operators, who has a token."""

from __future__ import annotations

import json
from typing import Any

import pytest

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import Process
from tests.support.poster import Poster

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def arrived(inngest: FakeInngest, accepted: dict[str, str]) -> dict[str, Any]:
    """The event that Inngest gets from a post."""
    arrival = await inngest.ledger.wait_for_id(accepted["eventId"])
    event: dict[str, Any] = json.loads(arrival.event)
    return event


async def test_an_event_is_seen_by_its_owner_and_operators_only(
    user: Poster, other: Poster, development: Process
) -> None:
    await user.sign_in("ada")
    _, accepted = await user.post()
    path = f"/api/events/{accepted['eventId']}"
    assert (await user.ask("GET", path))[0] == 200
    status, body = await other.ask("GET", path)
    assert (status, body["code"]) == (401, "session_required")
    await other.sign_in("eve")
    status, body = await other.ask("GET", path)
    assert (status, body["code"]) == (404, "not_found")
    await other.sign_in("kim")
    assert (await other.ask("GET", path))[0] == 200
    await development.said(rf"(?=.*show_event)(?=.*\bkim\b)(?=.*{accepted['eventId']})")


async def test_settings_show_in_the_next_event(
    user: Poster, other: Poster, inngest: FakeInngest
) -> None:
    await user.sign_in("ada", organizationId="org")
    await other.sign_in("kim")
    organization = "/api/settings/organization/org"
    assert (await other.ask("PUT", organization, json={"who": "org", "deep": {"a": 1}}))[0] == 200
    status, body = await user.ask("PUT", organization, json={"who": "ada"})
    assert (status, body["code"]) == (403, "operator_required")
    for own, who in (({}, "org"), ({"who": "ada"}, "ada"), ({"who": None}, None)):
        _, effective = await user.ask("PUT", "/api/settings", json=own)
        assert (effective["who"], effective["deep"]) == (who, {"a": 1})
        _, accepted = await user.post()
        event = await arrived(inngest, accepted)
        assert event["data"]["appSettings"] == effective


async def test_the_metrics_are_for_this_machine_and_who_has_the_token(user: Poster) -> None:
    async def ask(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with user.http.get(f"{user.url}/metrics", headers=named) as answer:
            if answer.status != 200:
                assert (await answer.json())["code"] == "metrics_token_required"
            return answer.status

    assert await ask() == 200
    assert await ask(X_Forwarded_For="127.0.0.1") == 401
    assert await ask(X_Forwarded_For="127.0.0.1", Authorization="Bearer wrong") == 401
    token = "Bearer a-token-of-the-tests-only"
    assert await ask(X_Forwarded_For="127.0.0.1", Authorization=token) == 200
