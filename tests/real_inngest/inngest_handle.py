"""An Inngest to compare with, the fake or a real one: posts, questions and waits."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import itertools
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from typer.testing import CliRunner

from inngest_outbox.console.commands.main import app
from inngest_outbox.dev.fake_inngest.event_api import SEED_HEADER
from tests.support.confirmed_delivery import SIGNING_KEY, self_hosted_service
from tests.support.inngest_process import EVENT_KEY
from tests.support.outbox_command import outbox_json
from tests.support.storage import eventually

UNKNOWN_ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
SERVICE_KEY = "a-key-of-the-tests-only"
_SIGNED = f"Bearer {SIGNING_KEY}"

_turns = itertools.count()


class Inngest:
    """One at `url`; with a `service_url` its events go through the service there.

    `outbox_url` is that service's outbox.
    """

    def __init__(
        self, http: aiohttp.ClientSession, url: str, service_url: str | None, outbox_url: str
    ) -> None:
        self._http = http
        self._url = url
        self._service_url = service_url
        self._outbox_url = outbox_url

    async def post(
        self, body: bytes | str, headers: Mapping[str, str] = {}, key: str = EVENT_KEY
    ) -> tuple[int, dict[str, Any]]:
        """A request to the Event API: status and answer."""
        raw = body.encode() if isinstance(body, str) else body
        url = f"{self._url}/e/{key}"
        if self._service_url:
            url = f"{self._service_url}/e/{SERVICE_KEY}"
        async with self._http.post(url, data=io.BytesIO(raw), headers=headers) as answer:
            return answer.status, json.loads(await answer.text())

    async def send(self, *events: Mapping[str, object], lead_ms: int | None = None) -> list[str]:
        """Their ULIDs, whose moment is `lead_ms` from now, or the server's where that is None."""
        headers = {} if lead_ms is None else {SEED_HEADER: seed(lead_ms)}
        status, answer = await self.post(json.dumps(events), headers)
        assert status == 200, answer
        ids: list[str] = answer["ids"]
        return ids

    async def send_past_the_service(self, event: Mapping[str, object], *, lead_ms: int = 0) -> str:
        """The ULID of an event that goes to Inngest directly; its moment is `lead_ms` from now."""
        url, body = f"{self._url}/e/{EVENT_KEY}", json.dumps(event).encode()
        headers = {SEED_HEADER: seed(lead_ms)}
        async with self._http.post(url, data=body, headers=headers) as answer:
            ulid: str = json.loads(await answer.text())["ids"][0]
            return ulid

    async def ask(self, path: str, authorization: str | None = _SIGNED) -> tuple[int, Any]:
        """A question to the REST API: status, and the answer, as text where it is no JSON."""
        headers = {} if authorization is None else {"Authorization": authorization}
        async with self._http.get(f"{self._url}{path}", headers=headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith("{") else text

    async def view(self, ulid: str) -> dict[str, Any]:
        """An event as the service shows it."""
        headers = {"Authorization": f"Bearer {SERVICE_KEY}"}
        url = f"{self._service_url}/api/events/{ulid}"
        async with self._http.get(url, headers=headers) as answer:
            view: dict[str, Any] = await answer.json()
            return view

    async def outbox(self, *arguments: str) -> dict[str, Any]:
        """What the `outbox` script prints with --json."""
        told = self_hosted_service(self._outbox_url, self._url)
        result = await asyncio.to_thread(
            CliRunner().invoke, app, [*arguments, "--json"], env=told, catch_exceptions=False
        )
        printed: dict[str, Any] = json.loads(result.stdout)
        return printed

    @contextlib.asynccontextmanager
    async def paused_delivery(self) -> AsyncIterator[None]:
        """The service sends nothing meanwhile."""
        await outbox_json(self._outbox_url, "pause")
        yield
        await outbox_json(self._outbox_url, "resume")

    async def page(self, query: str) -> list[dict[str, Any]]:
        """Events of the list."""
        found: list[dict[str, Any]] = (await self.ask(f"/v1/events?{query}"))[1]["data"]
        return found

    async def event(self, ulid: str) -> dict[str, Any] | None:
        """One event, None before it is stored."""
        found: dict[str, Any] | None = (await self.ask(f"/v1/events/{ulid}?{next(_turns)}"))[1][
            "data"
        ]
        return found

    async def runs(self, ulid: str) -> list[dict[str, Any]]:
        """The runs of an event in the second API."""
        path = f"/api/v2/events/{ulid}/runs?includeOutput=true"
        found: list[dict[str, Any]] = (await self.ask(path))[1].get("data", [])
        return found

    async def old_runs(self, ulid: str) -> list[dict[str, Any]]:
        """The runs of an event in the first API, past its cache."""
        path = f"/v1/events/{ulid}/runs?{next(_turns)}"
        found: list[dict[str, Any]] = (await self.ask(path))[1]["data"]
        return found

    async def running(self, ulid: str) -> dict[str, Any]:
        """The run of an event, once it runs and any later event has a higher ULID."""
        found = await eventually(lambda: self.runs(ulid))
        seen_ms = int(time.time() * 1000)
        await eventually(lambda: int(time.time() * 1000) > seen_ms)
        return found[0]

    async def ended(self, ulid: str, count: int = 1) -> list[dict[str, Any]]:
        """The `count` runs of an event, once all have ended."""
        return await eventually(
            lambda: self.runs(ulid),
            lambda runs: len(runs) == count and all("endedAt" in one for one in runs),
        )

    async def old_ended(self, ulid: str, count: int = 1) -> list[dict[str, Any]]:
        """The same of the first API."""
        return await eventually(
            lambda: self.old_runs(ulid),
            lambda runs: len(runs) == count and all(one["ended_at"] for one in runs),
        )


def seed(lead_ms: int) -> str:
    """A seed header whose ULIDs lie `lead_ms` from now."""
    entropy = base64.b64encode(secrets.token_bytes(10)).decode()
    return f"{int(time.time() * 1000) + lead_ms},{entropy}"


def new_key() -> str:
    """A value for `data.key` or an id that no other test has."""
    return secrets.token_hex(8)
