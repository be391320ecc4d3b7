"""Delivery as a service does it, from an outbox to an Inngest that stores behind its answers."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType

import uuid_utils

from inngest_outbox.bootstrap.delivery import run_relay
from inngest_outbox.bootstrap.stores import Outbox
from inngest_outbox.config.settings import Settings
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.observe.recorder import NullRecorder, Recorder
from inngest_outbox.outbox.event import Event, Meta
from inngest_outbox.outbox.ports import Intake
from inngest_outbox.relay.relay import Relay
from inngest_outbox.supervisor import run_supervisor
from tests.support.fleet import environment

SIGNING_KEY = "signkey-test-00112233445566778899aabbccddeeff"


def self_hosted(inngest_url: str, **changes: str) -> dict[str, str]:
    """The environment of a service whose Inngest is self-hosted."""
    return {
        "INNGEST_BASE_URL": inngest_url,
        "INNGEST_EVENT_KEY": "key",
        "INNGEST_SIGNING_KEY": SIGNING_KEY,
        "OUTBOX_SEND_TIMEOUT": "2s",
        "OUTBOX_DRAIN_SECONDS": "2s",
        **changes,
    }


def self_hosted_service(outbox_url: str, inngest_url: str, **changes: str) -> dict[str, str]:
    """The environment of such a service in a process of its own, on this outbox."""
    settings = environment(outbox_url, "", **self_hosted(inngest_url, **changes))
    del settings["INNGEST_DEV"]
    return settings


async def append_events(outbox: Intake, count: int) -> list[Event]:
    """Append events as Inngest takes them."""
    events = [event_for_inngest() for _ in range(count)]
    for event in events:
        await outbox.append(event)
    return events


def event_for_inngest(
    wire_id: str | None = None,
    *,
    name: str = "documents/aws.index",
    data: Mapping[str, str] = MappingProxyType({}),
    owner: str = "dev u-1",
    environment: str | None = None,
) -> Event:
    """An event as Inngest takes it, under `wire_id` where there is one."""
    event_id = str(uuid_utils.uuid7())
    payload: dict[str, object] = {"name": name, "data": dict(data)}
    if wire_id is None:
        payload["id"] = event_id
    return Event(
        event_id,
        name,
        owner,
        "u-1",
        int(time.time() * 1000),
        json.dumps(payload).encode(),
        meta=Meta(wire_id, environment),
    )


@contextlib.asynccontextmanager
async def confirmed_delivery(
    outbox: Outbox, inngest: FakeInngest, recorder: Recorder | None = None, **changes: str
) -> AsyncIterator[Relay]:
    """A relay and a confirmer at work until the block ends."""
    changes = {"OUTBOX_SEND_TIMEOUT": "30s", **changes}  # sends are counted
    settings = Settings.load(self_hosted(inngest.url, **changes))
    recorder = recorder or NullRecorder()
    async with (
        run_supervisor(recorder) as supervisor,
        run_relay(settings, outbox, recorder, supervisor) as relay,
    ):
        yield relay
