"""Encrypted data is nowhere between the post and the function: file, log, backup, page, traces."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from inngest_outbox.dev.fake_inngest.faults import ScriptedAnswer
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.encryption import Encryption
from tests.support.fleet import environment, running
from tests.support.operator_pages import OPERATOR, Visitor, visitor
from tests.support.outbox_command import outbox_command
from tests.support.poster import Poster
from tests.support.storage import eventually

CANARY = "canary-2718281828"
KEY, MACHINE_KEY = "key-of-the-canary-test", "machine-key-of-the-canary-test"
REPORT = {
    "name": "report/requested",
    "path": "/api/reports",
    "encrypt": True,
    "body": {"type": "object", "properties": {"report": {"type": "string"}}},
}


@contextlib.asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[bytes]]]:
    """The address of a collector of traces, and what it was sent."""
    sent: list[bytes] = []

    async def take(request: web.Request) -> web.Response:
        sent.append(await request.read())
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/"), sent


async def post_as_everybody(poster: Poster) -> None:
    """A user's event, a machine's, and one that Inngest refuses for good."""
    for path, body in (
        (f"/e/{MACHINE_KEY}", [{"name": REPORT["name"], "id": CANARY[:3], "data": {"x": CANARY}}]),
        ("/api/route", {"documentName": CANARY}),
        ("/api/reports", {"report": CANARY}),
        ("/api/reports", {"report": CANARY, "unknown": [CANARY]}),
    ):
        async with poster.http.post(poster.url + path, json=body) as answer:
            assert answer.status == 200, await answer.text()


async def seen_by(operator: Visitor, event_ids: list[str]) -> list[str]:
    pages = [await operator.see(path) for path in ("/outbox", "/outbox/events", "/metrics")]
    for event_id in event_ids:
        pages.append(await operator.see(f"/outbox/events/{event_id}"))
        pages.append(await operator.send(f"/outbox/events/{event_id}/payload"))
    return [*pages, await operator.see("/outbox/audit")]


async def test_encrypted_data_is_seen_nowhere(tmp_path: Path, inngest_api: FakeInngest) -> None:
    types = tmp_path / "types.json"
    route = {"name": "documents/aws.index", "path": "/api/route", "document": True}
    types.write_text(json.dumps({"types": [REPORT, route]}))
    folder = tmp_path / "data"
    folder.mkdir()
    url = f"sqlite:///{folder}/outbox.db"
    pages: list[str] = []
    async with collector() as (traces_url, traces):
        settings = environment(
            url,
            inngest_api.url,
            OUTBOX_ENCRYPTION_KEY=KEY,
            OUTBOX_EVENT_KEYS=f"cron:{MACHINE_KEY}",
            EVENT_TYPES_FILE=str(types),
            OPERATOR_EMAILS=OPERATOR,
            LOG_LEVEL="debug",
            LOG_FORMAT="json",
            OTEL_EXPORTER_OTLP_ENDPOINT=traces_url,
        )
        inngest_api.faults.add(ScriptedAnswer(400, body='{"error":"no"}'), times=6)
        async with running("serve", environment=settings) as service:
            poster = Poster(service.url)
            await poster.sign_in("ada")
            await post_as_everybody(poster)
            await poster.http.close()

            async def rows() -> list[dict[str, Any]]:
                _, out, _ = await outbox_command(url, "list", "--json")
                return list(json.loads(out))

            def are_settled(found: list[dict[str, Any]]) -> bool:
                return all(one["state"] in ("delivered", "dead") for one in found)

            ids = [one["id"] for one in await eventually(rows, are_settled)]
            assert len(ids) == 4
            async with visitor(service.url) as operator:
                pages = await seen_by(operator, ids)
            for command in (("backup", f"{folder}/backup.db"), ("list",), ("audit",), ("check",)):
                pages += (await outbox_command(url, *command))[1:]
            pages += [(await outbox_command(url, "show", one, "--payload"))[1] for one in ids]
        files = b"".join(one.read_bytes() for one in folder.iterdir())
        arrived = [arrival.event for arrival in inngest_api.ledger.kept()]
    seen = "".join([*pages, *service.lines]).encode() + files + b"".join([*traces, *arrived])
    assert CANARY.encode() not in seen
    # It was in all of them, and is there for who has the key.
    assert b"__ENCRYPTED__" in files
    assert sum("The data is encrypted." in page for page in pages) == 4
    assert b"outbox append" in b"".join(traces)
    assert '"event":"send"' in "".join(service.lines)
    assert all(CANARY.encode() in Encryption([KEY]).revealed(one)[0] for one in arrived)
