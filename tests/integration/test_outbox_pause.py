"""Why delivery was paused is shown wherever the pause is; the same on both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import structlog

from inngest_outbox.bootstrap.stores import Outbox, open_served_outbox
from inngest_outbox.config.settings import Settings
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.processes.banner import Standing, standing_of
from tests.support.outbox_command import outbox_command, outbox_json
from tests.support.remote_storage import status_of
from tests.support.storage import append_all

pytestmark = pytest.mark.usefixtures("quiet")

REASON = "Inngest is being upgraded"


@pytest.fixture
def quiet() -> Iterator[None]:
    """The service shares this process with the commands: its log lines stay out of their output."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
async def served(store_url: str) -> AsyncIterator[Outbox]:
    settings = Settings.load({"OUTBOX_URL": store_url})
    async with open_served_outbox(settings, NullRecorder(), status=status_of) as outbox:
        yield outbox


async def test_the_reason_of_a_pause_is_shown_until_it_ends(store_url: str, served: Outbox) -> None:
    [event] = await append_all(served, 1)
    _, out, _ = await outbox_command(store_url, "pause", "--reason", REASON, "--actor", "ada")
    assert out == f"Delivery is paused by ada: {REASON}. Posts are still accepted.\n"
    said = f"paused by ada: {REASON}"
    assert (await outbox_json(store_url, "stats"))["delivery"]["reason"] == said
    _, out, _ = await outbox_command(store_url, "stats")
    assert ["delivery", *said.split()] in [line.split() for line in out.splitlines()]
    code, out, _ = await outbox_command(store_url, "check")
    assert (code, f"delivery is {said} |" in out) == (1, True)
    explanation = (await outbox_json(store_url, "show", event.id))["explanation"]
    assert f"paused by ada ({REASON})" in explanation
    [audit] = await outbox_json(store_url, "audit")
    assert (audit["action"], audit["detail"]) == ("pause", REASON)

    resumed = {"paused": False, "pausedBy": None, "reason": None}
    assert await outbox_json(store_url, "resume") == resumed
    assert (await outbox_json(store_url, "stats"))["delivery"]["reason"] is None
    for given, reason in (((), None), (("--reason", REASON), REASON)):
        told = await outbox_json(store_url, "pause", "--actor", "ada", *given)
        assert told == {"paused": True, "pausedBy": "ada", "reason": reason}


@pytest.mark.usefixtures("served")
async def test_a_later_pause_without_a_reason_has_none(store_url: str) -> None:
    await outbox_json(store_url, "pause", "--reason", REASON, "--actor", "ada")
    await outbox_json(store_url, "pause", "--actor", "bob")
    code, out, _ = await outbox_command(store_url, "check")
    assert (code, "nothing is dead; delivery is paused by bob |" in out) == (0, True)
    assert (await outbox_json(store_url, "stats"))["delivery"]["reason"] == "paused by bob"


async def test_a_start_is_told_what_waits_and_who_paused(store_url: str, served: Outbox) -> None:
    assert await standing_of(served.inspector) == Standing(0, "")
    await append_all(served, 3)
    await outbox_json(store_url, "pause", "--reason", REASON, "--actor", "ada")
    assert await standing_of(served.inspector) == Standing(3, f"paused by ada: {REASON}")
