"""What the owner of an event sees of it once its run has ended, at the running service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import environment
from tests.support.poster import Poster
from tests.support.service_here import service_here
from tests.support.storage import eventually

FIELDS = {
    *("id", "inngestId", "name", "state", "attempts", "acceptedAt", "deliveredAt", "reason"),
    *("run", "otherRuns", "noRun", "idUsed", "final"),
}


async def test_the_owner_sees_the_state_the_id_at_inngest_and_the_run(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    settings = environment(f"sqlite:///{tmp_path / 'outbox.db'}", inngest_api.url)
    async with service_here(settings) as service:
        poster = Poster(service.url)
        await poster.sign_in("u-1")
        _, accepted = await poster.post()

        async def view() -> dict[str, Any]:
            status, seen = await poster.ask("GET", f"/api/events/{accepted['eventId']}?wait=5")
            assert status == 200
            return seen

        seen = await eventually(view, lambda seen: bool(seen["run"]))
        status, page = await poster.ask("GET", "/api/events")
        await poster.http.close()
    assert set(seen) == FIELDS
    assert (seen["id"], seen["name"]) == (accepted["eventId"], "documents/aws.index")
    assert (seen["state"], seen["attempts"], seen["reason"]) == ("delivered", 1, None)
    held = inngest_api.store.find(seen["inngestId"])
    assert held.id == seen["id"]
    assert seen["run"]["status"] == "completed"
    assert "output" in seen["run"]
    assert (status, [one["id"] for one in page["events"]]) == (200, [seen["id"]])
