"""A service with a file of event types that delivers to a fake Inngest, and users who post."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import ClientResponse

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.service_client import Client, service_client


class DeclaredService:
    """Posts as users, and tells what Inngest got."""

    def __init__(self, client: Client, inngest: FakeInngest) -> None:
        self.client = client
        self._inngest = inngest
        self._cookies: dict[str, str] = {}

    async def post(
        self, path: str, body: object, *, user: str | None = "ada", key: str | None = None
    ) -> ClientResponse:
        """The answer to a post as this user of the development sign-in, or by a Bearer token."""
        headers = {"Idempotency-Key": key} if key else {}
        if user and user.startswith("Bearer "):
            headers["Authorization"] = user
        elif user:
            headers["Cookie"] = await self._cookie(user)
        return await self.client.post(path, json=body, headers=headers)

    async def refusal(
        self, path: str, body: object, *, user: str | None = "ada", key: str | None = None
    ) -> tuple[int, str, str]:
        """The status, the code and the sentence of a refused post."""
        answer = await self.post(path, body, user=user, key=key)
        refused = await answer.json()
        return answer.status, refused["code"], refused["error"]

    async def delivered(self, path: str, body: object, *, user: str = "ada") -> Any:
        """The event that Inngest gets from a post."""
        answer = await self.post(path, body, user=user)
        assert answer.status == 200, await answer.text()
        arrival = await self._inngest.ledger.wait_for_id((await answer.json())["eventId"])
        return json.loads(arrival.event)

    async def sent(self, key: str, events: list[dict[str, Any]]) -> list[Any]:
        """The events that Inngest gets of those that a machine sends by its key; each has an id."""
        answer = await self.client.post(f"/e/{key}", json=events)
        assert answer.status == 200, await answer.text()
        arrivals = [await self._inngest.ledger.wait_for_id(event["id"]) for event in events]
        return [json.loads(arrival.event) for arrival in arrivals if arrival]

    async def _cookie(self, user: str) -> str:
        if user not in self._cookies:
            mailbox = user.replace(" ", ".")
            signed_in = {"email": f"{mailbox}@example.com", "id": user, "name": user.title()}
            answer = await self.client.post("/auth/dev-login", json=signed_in)
            self._cookies[user] = answer.headers["Set-Cookie"].partition(";")[0]
        return self._cookies[user]


@contextlib.asynccontextmanager
async def declared_service(
    folder: Path, inngest: FakeInngest, types: list[dict[str, Any]], **environ: str
) -> AsyncIterator[DeclaredService]:
    """A service over a file with these types."""
    file = folder / "types.json"
    file.write_text(json.dumps({"types": types}), "utf-8")
    given = {
        "INNGEST_DEV": inngest.url,
        "EVENT_TYPES_FILE": str(file),
        "SESSION_SECRET": "a-secret-of-the-tests-only",
        **environ,
    }
    async with service_client(folder, keeps_cookies=False, **given) as (_, client):
        yield DeclaredService(client, inngest)
