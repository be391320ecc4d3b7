"""A service removes delivered rows after their retention, and no other rows."""

from __future__ import annotations

from pathlib import Path

from service.dev.fake_inngest.faults import Match, Poison
from service.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import environment
from tests.support.outbox_command import outbox_json
from tests.support.poster import Poster
from tests.support.service_here import service_here
from tests.support.storage import eventually


async def test_delivered_rows_go_after_their_retention_and_dead_ones_stay(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    url = f"sqlite:///{tmp_path}/outbox.db"
    inngest_api.faults.add(Poison(), times=None, match=Match("documentName", "bad"))

    async def only_the_dead_one_is_left() -> bool:
        stats = await outbox_json(url, "stats")
        waiting = ("pending", "delivering", "sent")
        return [stats[state] for state in (*waiting, "delivered", "dead")] == [0, 0, 0, 0, 1]

    settings = environment(url, inngest_api.url, OUTBOX_RETENTION="1s")
    async with service_here(settings) as service:
        poster = Poster(service.url)
        await poster.sign_in("u-1")
        _, bad = await poster.post({"documentName": "bad"})
        _, good = await poster.post()
        await inngest_api.ledger.wait_for_id(good["eventId"])
        await eventually(only_the_dead_one_is_left)
        assert (await poster.ask("GET", f"/api/events/{good['eventId']}"))[0] == 404
        assert (await poster.ask("GET", f"/api/events/{bad['eventId']}"))[1]["state"] == "dead"
        await poster.http.close()
