"""What is sent to Inngest, where, and what its answers mean."""

from __future__ import annotations

import asyncio
import io
import logging
import math
import time
from collections.abc import Sequence
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inngest_outbox.config.settings import Settings
from inngest_outbox.config.values import InngestAddress
from inngest_outbox.errors import ConfigurationError
from inngest_outbox.inngest.address import event_link, inngest_address, make_client, run_link
from inngest_outbox.inngest.send_result import SendResult, Signal, classify
from inngest_outbox.inngest.sender import InngestSender
from tests.support.scripted_session import MIB, Answer, ScriptedSession

TAKEN = b'{"ids": ["01J"], "status": 200}'
KEY = "one/key"


def sender(session: ScriptedSession, **named: Any) -> InngestSender:
    given = {"origin": "http://inngest.test/", "key": KEY, "fallback_key": None}
    given |= {"environment": None, "timeout_seconds": 7.0}
    return InngestSender(session, **{**given, **named})  # type: ignore[arg-type]


async def sent(*answers: Answer | Exception, **named: Any) -> SendResult:
    return await sender(ScriptedSession(*answers), **named).send(b"{}")


async def urls(*statuses: int, fallback: str | None = "two") -> list[str]:
    """Which keys are used for one event after the other, by the answers they get."""
    session = ScriptedSession(*(Answer(status, (TAKEN,)) for status in statuses))
    one = sender(session, fallback_key=fallback)
    while len(session.asked) < len(statuses):
        await one.send(b"{}")
    return [asked.url.rpartition("/")[2] for asked in session.asked]


async def test_a_batch_is_one_post_of_an_array_that_follows_no_redirect() -> None:
    session = ScriptedSession(Answer(200, (TAKEN,)))
    result = await sender(session).send(b'{"a":1},{"b":2}')
    assert result == SendResult(200, ("01J",))
    [(method, url, named)] = session.asked
    assert (method, url) == ("POST", "http://inngest.test/e/one%2Fkey")
    assert named == {
        "data": b'[{"a":1},{"b":2}]',
        "headers": {"Content-Type": "application/json"},
        "timeout": aiohttp.ClientTimeout(total=7.0),
        "allow_redirects": False,
    }


async def test_headers_are_those_of_their_request_only() -> None:
    session = ScriptedSession(*(Answer(200, (TAKEN,)) for _ in range(3)))
    one = sender(session, environment="staging")
    await one.send(b"{}", {"x-inngest-event-id-seed": "c2VlZA==,1"})
    await one.send(b"{}", {"x-inngest-env": "branch/a"})
    await one.send(b"{}")
    plain = {"Content-Type": "application/json", "x-inngest-env": "staging"}
    assert [asked.named["headers"] for asked in session.asked] == [
        {**plain, "x-inngest-event-id-seed": "c2VlZA==,1"},
        {**plain, "x-inngest-env": "branch/a"},
        plain,
    ]


@pytest.mark.parametrize(("size", "form"), [(MIB - 1, bytes), (MIB, io.BytesIO)])
async def test_large_bytes_go_as_a_file_which_is_written_in_pieces(size: int, form: type) -> None:
    session = ScriptedSession(Answer())
    await sender(session).send(b"x" * (size - 2))
    assert type(session.asked[0].named["data"]) is form


@pytest.mark.parametrize(
    ("statuses", "keys"),
    [
        ((401, 200, 200), "1 2 2"),  # the other key stays first once it was taken
        ((401, 400, 200), "1 2 2"),
        ((401, 200, 403, 200, 200), "1 2 2 1 1"),
        ((404, 500, 401, 413, 200), "1 2 1 2 1"),  # one that is not taken stays second
        ((403, 401, 200), "1 2 1"),
        ((500, 200), "1 1"),  # only a refused key gives way
    ],
)
async def test_a_refused_key_gives_way_to_the_other(statuses: Sequence[int], keys: str) -> None:
    names = {"1": "one%2Fkey", "2": "two"}
    assert await urls(*statuses) == [names[key] for key in keys.split()]


async def test_the_answer_to_the_other_key_is_the_result_if_there_is_one() -> None:
    result = await sent(Answer(401), Answer(500, (b'{"error": "later"}',)), fallback_key="two")
    assert result == SendResult(500, None, "later")
    hung = await sent(Answer(401), TimeoutError(), fallback_key="two")
    assert hung == SendResult(None, words="timeout")
    for none in (None, ""):
        assert await urls(401, 200, fallback=none) == ["one%2Fkey"] * 2


async def test_an_answer_is_read_up_to_a_mebibyte_and_quoted_only_if_it_is_the_apis() -> None:
    result = await sent(Answer(200, (TAKEN[:3], TAKEN[3:10], TAKEN[10:])))
    assert result.ids == ("01J",)
    answer = Answer(200, (b" " * (MIB - 1), b"x", b"beyond"), content_type="text/html")
    assert (await sent(answer)).words == f"an answer that is not the API's (text/html, {MIB} bytes)"
    assert not answer.content.at_eof()
    gateway = await sent(Answer(502, (b"<h1>Bad gateway</h1>",), content_type="text/html"))
    words = "an answer that is not the API's (text/html, 20 bytes)"
    assert gateway == SendResult(502, None, words)


async def test_a_status_in_the_body_of_a_200_is_the_answer_s() -> None:
    body = b'{"ids": ["01J"], "status": 500, "error": "it broke"}'
    result = await sent(Answer(200, (body,)))
    assert (result.status, result.words) == (500, "it broke")
    assert classify(result, 1) is Signal.TROUBLE
    assert (await sent(Answer(200, (b'{"ids": ["01J"], "status": "ok"}',)))).status == 200


async def test_an_answer_that_is_not_utf8_keeps_its_status() -> None:
    """A gateway that refuses the key in Latin-1 refuses the key."""
    result = await sent(Answer(401, (b'{"error": "cl\xe9 refus\xe9e"}',)))
    assert (result.status, result.ids) == (401, None)


@pytest.mark.parametrize(
    ("status", "text", "is_quoted"),
    [(503, b"Event Keys are required", True), (503, b"no", False), (500, b"event key", False)],
)
async def test_only_a_server_that_wants_event_keys_is_quoted(
    status: int, text: bytes, *, is_quoted: bool
) -> None:
    words = (await sent(Answer(status, (text,)))).words
    assert (words == "event keys are required") is is_quoted


async def test_words_are_printable_and_cut_and_quote_no_key() -> None:
    result = await sent(Answer(400, (b'{"error": "a\\nb' + b"x" * 600 + b'"}',)))
    assert result.words == "a b" + "x" * 497
    body = b'{"error": "/e/one%2Fkey, one/key, /e/t%20wo and t wo"}'
    result = await sent(Answer(500, (body,)), fallback_key="t wo")
    assert result.words == "/e/********, ********, /e/******** and ********"
    result = await sent(Answer(500, (b'{"error": "%bone/key"}' % (b"x" * 495),)))
    assert result.words == "x" * 495 + "*****"  # a key is hidden before the cut


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0", 0.0), ("-3", 0.0), ("2.5", 2.5), (formatdate(0, usegmt=True), 0.0), ("soon", None)],
)
async def test_a_wait_is_read_from_its_header(header: str, seconds: float | None) -> None:
    result = await sent(Answer(429, (TAKEN,), {"Retry-After": header}))
    assert result.retry_after_seconds == seconds


@given(st.text() | st.floats().map(str) | st.datetimes().map(str))
@example("Wed, 21 Oct 2099 07:28:00 GMT")
@example("Wed, 21 Oct 0000 07:28:00 GMT")
@example("Wed, 21 Oct 2015 07:28:00 +9999")
@example("nan")
async def test_any_header_is_a_time_or_none(header: str) -> None:
    result = await sent(Answer(429, (TAKEN,), {"Retry-After": header, "Date": header}))
    for seconds in (result.retry_after_seconds, result.skew_seconds):
        assert seconds is None or not math.isnan(seconds)
    assert (result.retry_after_seconds or 0) >= 0


async def test_the_difference_of_the_clocks_is_read_from_the_date_and_a_wait_may_be_one() -> None:
    ahead, behind = (formatdate(time.time() + by, usegmt=True) for by in (60, -60))
    for date, least in ((behind, 59), (ahead, -61)):
        result = await sent(Answer(200, (TAKEN,), {"Date": date, "Retry-After": ahead}))
        assert least < (result.skew_seconds or 0) < least + 11
        assert 49 < (result.retry_after_seconds or 0) <= 60
    assert (await sent(Answer(200, (TAKEN,)))).skew_seconds is None


async def test_a_connection_that_was_not_made_is_told() -> None:
    key: Any = SimpleNamespace(host="inngest.test", port=80, ssl=False)
    error = aiohttp.ClientConnectorError(key, ConnectionRefusedError(111, "Connection refused"))
    told: list[Exception] = []
    result = await sent(error, unreached=told.append)
    words = "ClientConnectorError: Connection refused"
    assert result == SendResult(None, words=words, reached=False)
    assert told == [error]
    assert await sent(error) == result  # who is not to be told


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "timeout"),
        (aiohttp.ServerDisconnectedError(), "ServerDisconnectedError"),
        (ConnectionResetError(104, "reset by peer"), "ConnectionResetError: reset by peer"),
        (
            caused(aiohttp.ClientPayloadError("http://secret"), OSError(5, "I/O error")),
            "ClientPayloadError: I/O error",
        ),
        (asyncio.IncompleteReadError(b"", 7), "IncompleteReadError"),
        (ValueError("http://secret"), "ValueError"),
    ],
)
async def test_a_fault_of_the_way_is_a_result_without_an_address(
    error: Exception, words: str
) -> None:
    assert await sent(error) == SendResult(None, words=words)


CLOUD, API = "https://inn.gs/", "https://api.inngest.com/"
DEV, NO_KEY = "http://127.0.0.1:8288/", "NO_EVENT_KEY_SET"
OTHER, OWN = "http://dev:9999", "http://own:8288"
EVENTS, QUESTIONS = "http://events.test", "http://api.test"


def named(variables: dict[str, str]) -> Settings:
    return Settings.load({f"INNGEST_{name}": value for name, value in variables.items()})


@pytest.fixture(autouse=True)
def _no_inngest_environment(monkeypatch):
    for name in ("DEV", "BASE_URL", "API_BASE_URL", "EVENT_API_BASE_URL", "EVENT_KEY", "ENV"):
        monkeypatch.delenv(f"INNGEST_{name}", raising=False)


@pytest.mark.parametrize(
    ("variables", "event_origin", "api_origin", "key"),
    [
        ({}, DEV, DEV, NO_KEY),
        ({"DEV": "1"}, DEV, DEV, NO_KEY),
        ({"DEV": "true", "EVENT_KEY": "k"}, DEV, DEV, "k"),
        ({"DEV": OTHER}, OTHER, OTHER, NO_KEY),
        ({"DEV": "dev:9999"}, OTHER, OTHER, NO_KEY),
        ({"EVENT_KEY": "k"}, CLOUD, API, "k"),
        ({"DEV": "0", "EVENT_KEY": "k"}, CLOUD, API, "k"),
        ({"DEV": "False", "EVENT_KEY": "k"}, CLOUD, API, "k"),
        ({"BASE_URL": OWN}, OWN, OWN, NO_KEY),
        ({"BASE_URL": "own:8288", "EVENT_KEY": "k"}, "https://own:8288", "https://own:8288", "k"),
        (
            {"BASE_URL": OWN, "EVENT_API_BASE_URL": EVENTS, "EVENT_KEY": "k"},
            *(EVENTS, OWN, "k"),
        ),
        (
            {"DEV": OTHER, "BASE_URL": OWN, "API_BASE_URL": QUESTIONS},
            *(OWN, QUESTIONS, NO_KEY),
        ),
    ],
)
def test_a_client_goes_where_the_configuration_says(variables, event_origin, api_origin, key):
    settings = named({**variables, "ENV": "branch/a"})
    client, address = make_client(settings), inngest_address(settings)
    found = (client.event_api_origin, client.api_origin, client.event_key, client.env)
    assert InngestAddress(*found) == address  # that of the relay
    assert found == (event_origin, api_origin, key, "branch/a")


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
KEYED = {"EVENT_KEY": "key", "DEV": "0"}
EVENT_PAGE = f"event?eventID={ULID}"
UI = "https://ui.example.com/"


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({"DEV": "http://127.0.0.1:8288"}, f"http://127.0.0.1:8288/{EVENT_PAGE}"),
        ({**KEYED, "BASE_URL": "https://own.test/"}, f"https://own.test/{EVENT_PAGE}"),
        ({"BASE_URL": "http://inngest:8288", "UI_URL": UI}, f"{UI}{EVENT_PAGE}"),
        (KEYED, f"https://app.inngest.com/env/production/events/{ULID}"),
        ({**KEYED, "ENV": "a/branch"}, f"https://app.inngest.com/env/a%2Fbranch/events/{ULID}"),
    ],
)
def test_an_event_is_found_where_its_inngest_has_its_pages(
    variables: dict[str, str], address: str
) -> None:
    assert event_link(named(variables))(ULID) == address


def test_an_address_that_another_process_has_found_out_is_taken_as_it_is() -> None:
    known = InngestAddress("http://found:8288/", "http://api:8288/", "key", None)
    link = event_link(Settings.load({"INNGEST_DEV": "1"}).with_known_inngest(known))
    assert link(ULID) == f"http://found:8288/event?eventID={ULID}"
    assert link("a&b=<c>") == "http://found:8288/event?eventID=a%26b%3D%3Cc%3E"
    assert "key" not in repr(known).replace("event_key", "")


def test_a_fake_inngest_has_no_pages() -> None:
    settings = Settings.load({}).with_fake_inngest("http://127.0.0.1:9")
    assert event_link(settings)(ULID) is None


def test_the_page_of_a_run_is_in_the_environment_of_its_event() -> None:
    cloud = run_link(Settings.load({"INNGEST_EVENT_KEY": "k", "INNGEST_ENV": "staging"}))
    assert cloud("01R", "branch/1") == "https://app.inngest.com/env/branch%2F1/runs/01R"
    assert cloud("01R", None) == "https://app.inngest.com/env/staging/runs/01R"
    own = run_link(Settings.load({"INNGEST_DEV": "http://127.0.0.1:8288"}))
    assert own("01R", "branch/1") == "http://127.0.0.1:8288/run?runID=01R"
