"""Where events go, and whether delivery waits for Inngest's store."""

from __future__ import annotations

import pytest

from inngest_outbox.config.destination import Destination, confirmation_mode, destination
from inngest_outbox.config.settings import Settings

KEY = {"INNGEST_EVENT_KEY": "key"}
SIGNED = {"INNGEST_SIGNING_KEY": "signkey-prod-00ff"}
BASE = {"INNGEST_BASE_URL": "http://inngest:8288"}
EVENTS = {"INNGEST_EVENT_API_BASE_URL": "https://inngest.test"}
OWN = {**BASE, **KEY}
OF_DEV, OF_OWN = "off (a dev server keeps nothing by design)", "on (self-hosted Inngest)"
CHOSEN = "off (OUTBOX_CONFIRM)"
DECLINED = {**KEY, "OUTBOX_CONFIRM": "off"}


@pytest.mark.parametrize(
    ("environ", "kind", "mode"),
    [
        ({}, Destination.DEV_SERVER, OF_DEV),
        ({"INNGEST_DEV": "http://inngest:8288", **SIGNED}, Destination.DEV_SERVER, OF_DEV),
        ({"INNGEST_DEV": "1", **OWN, **SIGNED}, Destination.DEV_SERVER, OF_DEV),
        (KEY, Destination.CLOUD, "off (Inngest's cloud)"),
        ({**KEY, **SIGNED}, Destination.CLOUD, "off (Inngest's cloud)"),
        (OWN, Destination.SELF_HOSTED, "off (INNGEST_SIGNING_KEY is not set)"),
        ({**OWN, **SIGNED}, Destination.SELF_HOSTED, OF_OWN),
        ({"INNGEST_DEV": "0", **OWN, **SIGNED}, Destination.SELF_HOSTED, OF_OWN),
        ({**EVENTS, **KEY, **SIGNED}, Destination.SELF_HOSTED, OF_OWN),
        ({**EVENTS, **SIGNED}, Destination.SELF_HOSTED, OF_OWN),
        (DECLINED, Destination.CLOUD, CHOSEN),
        ({**OWN, **SIGNED, "OUTBOX_CONFIRM": "off"}, Destination.SELF_HOSTED, CHOSEN),
        ({**KEY, **SIGNED, "OUTBOX_CONFIRM": "ON"}, Destination.CLOUD, "on (OUTBOX_CONFIRM)"),
        ({**BASE, **SIGNED}, Destination.SELF_HOSTED, OF_OWN),
        (BASE, Destination.DEV_SERVER, OF_DEV),
        ({"OUTBOX_CONFIRM": "on"}, Destination.DEV_SERVER, "on (OUTBOX_CONFIRM)"),
    ],
)
def test_confirmation_is_on_where_it_can_be_and_matters(environ, kind, mode):
    settings = Settings.load(environ)
    found = confirmation_mode(settings)
    assert (destination(settings), str(found)) == (kind, mode)
    assert found.on is mode.startswith("on")
    assert found.can_ask is (environ not in (KEY, OWN, DECLINED))


def test_a_fake_inngest_is_said_to_be_one_and_is_no_variable():
    fake = "http://127.0.0.1:1"
    settings = Settings.load({**KEY, "INNGEST_DEV": "0"}).with_fake_inngest(fake)
    assert (settings.inngest_base_url, destination(settings)) == (fake, Destination.FAKE)
    assert str(confirmation_mode(settings)) == "off (a fake Inngest keeps nothing)"
    assert Settings.load({"FAKE_INNGEST_URL": fake}).fake_inngest_url is None
