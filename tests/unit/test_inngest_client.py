"""Inngest's address in each configuration: the client's, and that of an event's page."""

from __future__ import annotations

import logging

import pytest

from service.config.settings import Settings
from service.config.values import InngestAddress
from service.errors import ConfigurationError
from service.inngest.address import event_link, inngest_address, make_client, run_link

CLOUD = "https://inn.gs/"
DEV = "http://127.0.0.1:8288/"


@pytest.fixture(autouse=True)
def _no_inngest_environment(monkeypatch):
    for name in ("DEV", "BASE_URL", "API_BASE_URL", "EVENT_API_BASE_URL", "EVENT_KEY", "ENV"):
        monkeypatch.delenv(f"INNGEST_{name}", raising=False)


@pytest.mark.parametrize(
    ("environ", "event_origin", "api_origin", "key"),
    [
        ({}, DEV, DEV, "NO_EVENT_KEY_SET"),
        ({"INNGEST_DEV": "1"}, DEV, DEV, "NO_EVENT_KEY_SET"),
        ({"INNGEST_DEV": "true", "INNGEST_EVENT_KEY": "k"}, DEV, DEV, "k"),
        (
            {"INNGEST_DEV": "http://dev:9999"},
            "http://dev:9999",
            "http://dev:9999",
            "NO_EVENT_KEY_SET",
        ),
        ({"INNGEST_DEV": "dev:9999"}, "http://dev:9999", "http://dev:9999", "NO_EVENT_KEY_SET"),
        ({"INNGEST_EVENT_KEY": "k"}, CLOUD, "https://api.inngest.com/", "k"),
        ({"INNGEST_DEV": "0", "INNGEST_EVENT_KEY": "k"}, CLOUD, "https://api.inngest.com/", "k"),
        (
            {"INNGEST_DEV": "False", "INNGEST_EVENT_KEY": "k"},
            CLOUD,
            "https://api.inngest.com/",
            "k",
        ),
        (
            {"INNGEST_BASE_URL": "http://own:8288"},
            "http://own:8288",
            "http://own:8288",
            "NO_EVENT_KEY_SET",
        ),
        (
            {"INNGEST_BASE_URL": "own:8288", "INNGEST_EVENT_KEY": "k"},
            "https://own:8288",
            "https://own:8288",
            "k",
        ),
        (
            {
                "INNGEST_BASE_URL": "http://own:8288",
                "INNGEST_EVENT_API_BASE_URL": "http://events.test",
                "INNGEST_EVENT_KEY": "k",
            },
            "http://events.test",
            "http://own:8288",
            "k",
        ),
        (
            {
                "INNGEST_DEV": "http://dev:9999",
                "INNGEST_BASE_URL": "http://own:8288",
                "INNGEST_API_BASE_URL": "http://api.test",
            },
            "http://own:8288",
            "http://api.test",
            "NO_EVENT_KEY_SET",
        ),
    ],
)
def test_a_client_goes_where_the_configuration_says(environ, event_origin, api_origin, key):
    client = make_client(Settings.load(environ))
    assert client.event_api_origin == event_origin
    assert client.api_origin == api_origin
    assert client.event_key == key


def test_the_relay_sends_to_the_address_of_the_sdk_client():
    settings = Settings.load({"INNGEST_BASE_URL": "own:8288", "INNGEST_ENV": "branch/a"})
    address, client = inngest_address(settings), make_client(settings)
    assert address.event_api_origin == client.event_api_origin
    assert address.api_origin == client.api_origin
    assert address.event_key == client.event_key
    assert address.environment == client.env == "branch/a"


@pytest.mark.parametrize(
    ("environ", "production"),
    [({}, False), ({"INNGEST_EVENT_KEY": "k"}, True), ({"INNGEST_DEV": "1"}, False)],
)
def test_the_mode_is_cloud_only_with_a_key_and_without_a_dev_server(environ, production):
    assert make_client(Settings.load(environ)).is_production is production


@pytest.mark.parametrize("name", ["DEV", "BASE_URL", "API_BASE_URL", "EVENT_API_BASE_URL"])
@pytest.mark.parametrize("url", ["http://inngest", "ftp://a.b:1", "http://:80", "http://a:b@c:80"])
def test_a_url_that_the_sdk_would_pass_over_is_a_fault(name, url):
    with pytest.raises(ConfigurationError, match=f"INNGEST_{name}: ") as caught:
        Settings.load({f"INNGEST_{name}": url})
    assert url not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://[::1]:8288", "https://inngest.test", "localhost:8288", "http://own:1/base/ "]
)
def test_every_other_url_goes_to_the_sdk_unchanged(url):
    client = make_client(Settings.load({"INNGEST_BASE_URL": url}))
    assert client.event_api_origin.removeprefix("http://") == url.strip().removeprefix("http://")


def test_the_library_that_would_log_the_event_key_is_quiet():
    logging.getLogger("httpx").setLevel(logging.INFO)
    make_client(Settings.load({}))
    assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)


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


def test_the_page_of_a_run_is_in_the_environment_of_its_event() -> None:
    cloud = run_link(Settings.load({"INNGEST_EVENT_KEY": "k", "INNGEST_ENV": "staging"}))
    assert cloud("01R", "branch/1") == "https://app.inngest.com/env/branch%2F1/runs/01R"
    assert cloud("01R", None) == "https://app.inngest.com/env/staging/runs/01R"
    own = run_link(Settings.load({"INNGEST_DEV": "http://127.0.0.1:8288"}))
    assert own("01R", "branch/1") == "http://127.0.0.1:8288/run?runID=01R"
