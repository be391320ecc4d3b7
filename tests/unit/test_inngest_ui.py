"""The address of an event's page in Inngest."""

from __future__ import annotations

import pytest

from service.config.settings import Settings
from service.config.values import InngestAddress
from service.inngest.address import event_link

ULID = "01M8ACPNM0AXN1N6B3WC000004"
KEY = {"INNGEST_EVENT_KEY": "key", "INNGEST_DEV": "0"}


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({"INNGEST_DEV": "http://127.0.0.1:8288"}, f"http://127.0.0.1:8288/event?eventID={ULID}"),
        (
            {**KEY, "INNGEST_BASE_URL": "https://inngest.example.com/"},
            f"https://inngest.example.com/event?eventID={ULID}",
        ),
        (
            {
                "INNGEST_BASE_URL": "http://inngest:8288",
                "INNGEST_UI_URL": "https://ui.example.com/",
            },
            f"https://ui.example.com/event?eventID={ULID}",
        ),
        (KEY, f"https://app.inngest.com/env/production/events/{ULID}"),
        (
            {**KEY, "INNGEST_ENV": "a/branch"},
            f"https://app.inngest.com/env/a%2Fbranch/events/{ULID}",
        ),
    ],
)
def test_an_event_is_found_where_its_inngest_has_its_pages(
    environment: dict[str, str], address: str
) -> None:
    assert event_link(Settings.load(environment))(ULID) == address


def test_an_address_that_another_process_has_found_out_is_taken_as_it_is() -> None:
    known = InngestAddress("http://found:8288/", "http://api:8288/", "key", None)
    settings = Settings.load({"INNGEST_DEV": "1"}).with_known_inngest(known)
    assert event_link(settings)(ULID) == f"http://found:8288/event?eventID={ULID}"
    assert "key" not in repr(known).replace("event_key", "")


def test_a_fake_inngest_has_no_pages() -> None:
    settings = Settings.load({}).with_fake_inngest("http://127.0.0.1:9")
    assert event_link(settings)(ULID) is None


def test_what_is_no_ulid_stays_in_its_place() -> None:
    link = event_link(Settings.load({"INNGEST_DEV": "http://127.0.0.1:8288"}))
    assert link("a&b=<c>") == "http://127.0.0.1:8288/event?eventID=a%26b%3D%3Cc%3E"
