"""The metrics of a service after posts, a refusal, a dead event and an operator's command."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from inngest_outbox.dev.fake_inngest.faults import Match, Poison
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.fleet import environment
from tests.support.outbox_command import outbox_json
from tests.support.poster import Poster
from tests.support.service_here import service_here
from tests.support.storage import eventually

AFTER_A_RUN = {
    "outbox_accepted_total": 2,
    "outbox_refused_total{code=document_name_required}": 1,
    "outbox_delivered_total": 1,
    "outbox_dead_total{reason=rejected}": 1,
    "outbox_operator_actions_total{action=pause}": 1,
    "outbox_operator_actions_total{action=resume}": 1,
    "outbox_delivery_latency_seconds_count": 1,
    "outbox_group_events_sum": 2,
    "outbox_send_events_count": 4,
    "outbox_send_seconds_count": 4,
    "outbox_io_errors_total": 0,
    "outbox_write_failures_total": 0,
    "outbox_lease_lost_total": 0,
}


async def samples(poster: Poster) -> dict[str, float]:
    async with poster.http.get(f"{poster.url}/metrics") as answer:
        families = list(text_string_to_metric_families(await answer.text()))
    return {
        sample.name + _labels(sample.labels): sample.value
        for family in families
        for sample in family.samples
    }


def _labels(labels: dict[str, str]) -> str:
    inner = ",".join(f"{name}={value}" for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""


async def test_each_figure_counts_what_its_name_says(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    url = f"sqlite:///{tmp_path}/outbox.db"
    found: dict[str, float] = {}

    async def the_bad_event_is_dead() -> bool:
        found.update(await samples(poster))
        return found.get("outbox_dead_total{reason=rejected}", 0) == 1

    settings = environment(url, inngest_api.url, OUTBOX_SEND_TIMEOUT="60s")
    async with service_here(settings) as service:
        poster = Poster(service.url)
        await poster.sign_in("u-1")
        _, good = await poster.post()
        await inngest_api.ledger.wait_for_id(good["eventId"])
        assert await poster.refused(json={}) == (400, "document_name_required")
        await outbox_json(url, "pause")
        await outbox_json(url, "resume")
        inngest_api.faults.add(Poison(), times=None, match=Match("documentName", "bad"))
        assert (await poster.post({"documentName": "bad"}))[0] == 200
        await eventually(the_bad_event_is_dead)
        await poster.http.close()
    assert {name: found.get(name) for name in AFTER_A_RUN} == AFTER_A_RUN
