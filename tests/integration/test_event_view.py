from __future__ import annotations

from aiohttp import web

from service.identity.user import User
from service.outbox.event import Event
from service.outbox.model import ClaimRequest, Dead, Settlement
from service.outbox.sqlite.store import open_sqlite_outbox
from service.web.resources.events import Events


async def ada(request: web.Request) -> User:
    return User("u-1")


async def test_the_owner_of_a_dead_event_sees_the_code_and_the_servers_words(
    aiohttp_client, tmp_path
):
    limits = {"max_pending": 10, "max_pending_per_user": 10}
    async with open_sqlite_outbox(tmp_path / "outbox.db", **limits) as outbox:
        await outbox.append(Event("e-1", "a/b", "u-1", 1_795_559_419_447, b"{}"))
        batch = await outbox.claim(ClaimRequest(1, 1000, 30))
        dead = Dead(batch.entries[0].seq, 3, "rejected", "name must not be empty")
        await outbox.settle(Settlement(batch.claim, dead=[dead]))
        app = web.Application()
        app.add_routes(Events(outbox, ada, lambda user: False).routes())
        client = await aiohttp_client(app)
        view = await (await client.get("/api/events/e-1")).json()
    assert view["state"] == "dead"
    assert view["reason"] == "rejected: name must not be empty"


async def test_the_outbox_and_its_log_are_readable_by_their_owner_only(tmp_path):
    limits = {"max_pending": 10, "max_pending_per_user": 10}
    async with open_sqlite_outbox(tmp_path / "outbox.db", **limits) as outbox:
        await outbox.append(Event("e-1", "a/b", "u-1", 1_795_559_419_447, b"{}"))
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("outbox.db*")}
    assert {modes["outbox.db"], modes["outbox.db-wal"]} == {0o600}
