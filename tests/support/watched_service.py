"""The store part of a service whose runs and alarms are watched."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from inngest_outbox.bootstrap.store_part import StorePart, run_store_part
from inngest_outbox.config.settings import Settings
from inngest_outbox.observe.metrics import PrometheusRecorder
from inngest_outbox.outbox.ports import Intake
from inngest_outbox.runs.turn import WatchPace
from tests.support.confirmed_delivery import event_for_inngest, self_hosted

KEY = bytes(range(24))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
SOON = WatchPace(sample=0.1, ask=0.05, keep=0.1, quiet=1.0, look=0.1, over=0.2, answer=0.5)


@contextlib.asynccontextmanager
async def watched_service(
    path: Path | str, inngest_url: str, recorder: PrometheusRecorder | None = None, **changes: str
) -> AsyncIterator[StorePart]:
    """Delivery and both watches, at a quick pace, until the block ends."""
    url = path if isinstance(path, str) else f"sqlite:///{path}"
    settings = Settings.load(self_hosted(inngest_url, OUTBOX_URL=url, **changes))
    async with run_store_part(
        settings, recorder or PrometheusRecorder(), None, with_relay=True, pace=SOON
    ) as part:
        yield part


async def post(intake: Intake, name: str, count: int = 1, **data: str) -> None:
    """Append events of a name."""
    for _ in range(count):
        await intake.append(event_for_inngest(name=name, data=data))


class Receiver:
    """Takes alarms. `answer` makes its answers; `alarms` are those whose signatures are right."""

    def __init__(self) -> None:
        self.alarms: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.content_types: list[str] = []
        self.requests = 0
        self.answer: Callable[[], web.Response] = web.Response
        self.hangs = False
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        """One alarm."""
        self.requests += 1
        if self.hangs:
            await request.content.iter_any().__anext__()
            await asyncio.Event().wait()
        body = await request.read()
        sent = request.headers
        message = f"{sent['webhook-id']}.{sent['webhook-timestamp']}.".encode() + body
        signature = base64.b64encode(hmac.digest(KEY, message, hashlib.sha256)).decode()
        assert sent["webhook-signature"] == f"v1,{signature}"
        assert abs(int(sent["webhook-timestamp"]) - time.time()) < 60
        self.ids.append(sent["webhook-id"])
        self.content_types.append(request.content_type)
        self.alarms.append(json.loads(body))
        return self.answer()

    def told(self, alarm: str) -> list[str]:
        """The types of the changes of one alarm, in their order."""
        return [one["type"] for one in self.alarms if one["data"]["alarm"] == alarm]


@contextlib.asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver at work."""
    taking = Receiver()
    app = web.Application()
    app.router.add_post("/alarms", taking.take)
    async with TestServer(app) as server:
        taking.url = str(server.make_url("/alarms"))
        yield taking
