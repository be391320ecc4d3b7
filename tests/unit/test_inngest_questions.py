"""Questions to Inngest's REST API: which events it holds, and their runs."""

from __future__ import annotations

import contextlib
from typing import Any

import aiohttp
import msgspec
import pytest

from inngest_outbox.config.settings import Settings
from inngest_outbox.errors import InngestApiError
from inngest_outbox.inngest.held import HeldEvent
from inngest_outbox.inngest.rest_api import RestApi, make_rest_api
from inngest_outbox.inngest.runs import (
    EventRun,
    Named,
    first_start_ms,
    outcomes_of,
    runs_of,
    stacks_of,
)
from inngest_outbox.outbox.inngest_id import encode_ulid
from tests.support.scripted_session import MIB, Answer, ScriptedSession

DAY_MS = 86_400_000
ULID = "01KAVJ7KPR0000000000000001"
MOST = 32 * MIB
TOO_LARGE = (b" " * (MOST - 1), b"x")


def asker(session: ScriptedSession, **named: Any) -> RestApi:
    given = {"origin": "http://inngest.test/", "signing_key": "signkey", "environment": None}
    return RestApi(session, **{**given, "timeout_seconds": 7.0, **named})  # type: ignore[arg-type]


def shown(*numbers: int, **other: Any) -> bytes:
    data = [{"internal_id": f"u{number}", "id": f"e{number}"} for number in numbers]
    return msgspec.json.encode({"data": data, **other})


async def test_a_page_is_asked_for_below_a_ulid_and_follows_no_redirect() -> None:
    session = ScriptedSession(Answer(200, (shown(2, 1),)))
    assert await asker(session).page(ULID, 50) == [HeldEvent("u2", "e2"), HeldEvent("u1", "e1")]
    [(method, url, named)] = session.asked
    assert (method, url) == ("GET", "http://inngest.test/v1/events")
    assert named == {
        "params": {"cursor": ULID, "limit": "50", "received_after": "1980-01-01T00:00:00Z"},
        "headers": {"Authorization": "Bearer signkey"},
        "timeout": aiohttp.ClientTimeout(total=7.0),
        "allow_redirects": False,
    }


@pytest.mark.parametrize(
    "body", [b'{"data": null}', b'{"data": []}', b'{"status": 404}', b'{"page": {"limit": 20}}']
)
async def test_a_page_without_events_is_empty_and_an_event_without_runs_has_none(
    body: bytes,
) -> None:
    one = asker(ScriptedSession(*[Answer(200, (body,))] * 3))
    assert await one.page(ULID, 50) == []
    for thorough in (False, True):
        assert list(await one.run_ids(ULID, thorough=thorough)) == []


async def test_the_events_of_a_page_that_is_too_large_are_asked_for_by_halves() -> None:
    session = ScriptedSession(*(Answer(200, TOO_LARGE) for _ in range(2)), Answer(200, (shown(1),)))
    assert await asker(session).page(ULID, 7) == [HeldEvent("u1", "e1")]
    assert [asked.named["params"]["limit"] for asked in session.asked] == ["7", "3", "1"]
    session = ScriptedSession(*(Answer(200, TOO_LARGE) for _ in range(2)))
    with pytest.raises(InngestApiError, match="one event is too large"):
        await asker(session).page(ULID, 2)
    with pytest.raises(InngestApiError, match="not the API's"):
        await asker(ScriptedSession(Answer(200, TOO_LARGE))).run_ids(ULID)


async def test_an_answer_is_read_to_its_end_or_up_to_its_bound() -> None:
    body = shown(1)
    answer = Answer(200, (body[:5], body[5:9], body[9:]))
    assert await asker(ScriptedSession(answer)).page(ULID, 1) == [HeldEvent("u1", "e1")]
    whole = Answer(200, (body.ljust(MOST - 1), b"", b""))
    assert await asker(ScriptedSession(whole)).page(ULID, 1) == [HeldEvent("u1", "e1")]
    beyond = Answer(200, (*TOO_LARGE, b"beyond"))
    with pytest.raises(InngestApiError):
        await asker(ScriptedSession(beyond)).page(ULID, 1)
    assert not beyond.content.at_eof()


async def test_the_runs_of_an_event_are_found_by_questions_that_differ() -> None:
    body = msgspec.json.encode({"data": [{"run_id": "r1", "status": "Completed"}]})
    session = ScriptedSession(Answer(200, (body,)), Answer(200, (body,)))
    one = asker(session)
    assert [await one.run_ids(ULID), await one.run_ids(ULID)] == [["r1"], ["r1"]]
    assert {asked.url for asked in session.asked} == {f"http://inngest.test/v1/events/{ULID}/runs"}
    first, second = (asked.named["params"] for asked in session.asked)
    assert first != second
    session = ScriptedSession(Answer(200, (b'{"data": [{"id": "r1", "status": "RUNNING"}]}',)))
    assert await asker(session).run_ids(ULID, thorough=True) == ["r1"]
    assert session.asked[0].url == f"http://inngest.test/api/v2/events/{ULID}/runs"


@pytest.mark.parametrize("word", ["QUEUED", "scheduled", "RUNNING", "COMPLETED"])
@pytest.mark.parametrize("ended_at", [None, "2026-11-27T05:00:00Z"])
@pytest.mark.parametrize("first", ["Failed", None])
async def test_a_run_that_has_ended_and_is_said_to_go_on_is_asked_for_again(
    word: str, ended_at: str | None, first: str | None
) -> None:
    run = {"id": "r1", "status": word, "endedAt": ended_at, "output": {"n": 7}}
    told = {"data": first and {"run_id": "r1", "status": first}}
    answers = [Answer(200, (msgspec.json.encode(one),)) for one in ({"data": run}, told)]
    session = ScriptedSession(*answers)
    found = await asker(session).run("r1", "branch")
    is_asked = ended_at is not None and word != "COMPLETED"
    status = first if is_asked and first else word
    assert found == EventRun("r1", status, ended_at=ended_at, output={"n": 7})
    assert await asker(ScriptedSession(Answer(404, (b'{"errors": []}',)))).run("r1") is None
    assert session.asked[0].named["params"] == {"includeOutput": "true"}
    urls = ["http://inngest.test/api/v2/runs/r1", "http://inngest.test/v1/runs/r1"]
    assert [asked.url for asked in session.asked] == urls[: 1 + is_asked]
    assert {asked.named["headers"]["x-inngest-env"] for asked in session.asked} == {"branch"}


async def test_after_a_slow_answer_smaller_pages_are_asked_for_until_answers_are_fast() -> None:
    session = ScriptedSession(TimeoutError(), *(Answer(200, (shown(1),)) for _ in range(6)))
    one = asker(session)
    for is_slow, wanted, asked in (
        (True, 50, "50"),
        (False, 2, "2"),  # says nothing about larger ones
        (False, 50, "25"),
        (False, 50, "50"),
        (True, 1, "1"),
        (False, 50, "1"),
        (False, 50, "2"),
    ):
        one._seconds = 0.0 if is_slow else 60.0
        with contextlib.suppress(InngestApiError):
            await one.page(ULID, wanted)
        assert session.asked[-1].named["params"]["limit"] == asked


@pytest.mark.parametrize("output", [b'"a\\ud83d"', b'"a\xff"'])
async def test_what_is_not_unicode_in_an_output_is_replaced(output: bytes) -> None:
    """JavaScript cuts texts within a character; Inngest passes outputs on as they are."""
    body = b'{"data": {"id": "r", "status": "COMPLETED", "output": %s}}' % output
    run = await asker(ScriptedSession(Answer(200, (body,)))).run("r")
    assert run is not None
    assert (run.status, run.output) == ("COMPLETED", "a\ufffd")


@pytest.mark.parametrize(
    ("body", "skips"),
    [
        (b'{"data": {"triggers": [{"value": "a"}], "configuration": {"retries": {}}}}', False),
        *(
            (b'{"data": {"configuration": {"%b": %b}}}' % (name, value), value != b"null")
            for name in (b"rateLimit", b"debounce", b"eventsBatch", b"singleton")
            for value in (b'{"a": 1}', b"null")
        ),
        (b'{"data": {"triggers": [{"value": "a", "if": "event.data.x"}]}}', True),
        (b"{}", None),
    ],
)
async def test_a_function_may_leave_events_without_a_run(
    body: bytes, *, skips: bool | None
) -> None:
    session = ScriptedSession(Answer(200, (body,)))
    assert await asker(session).may_skip("an app", "f/1") is skips
    assert session.asked[0].url == "http://inngest.test/api/v2/apps/an%20app/functions/f%2F1"
    assert await asker(ScriptedSession(Answer(404))).may_skip("an unknown", "f") is None


async def test_an_id_was_used_before_by_another_event_of_a_day() -> None:
    ours, other, first, old = (encode_ulid(DAY_MS * 2 + at << 80) for at in (DAY_MS, 1, 0, -1))
    named = {"limit": "50", "received_after": "1980-01-01T00:00:00Z", "name": "n"}

    async def used(*pages: list[tuple[str, str]]) -> str | None:
        found = [[{"internal_id": ulid, "id": id_} for ulid, id_ in page] for page in pages]
        answers = [Answer(200, (msgspec.json.encode({"data": page}),)) for page in found]
        session = ScriptedSession(*answers)
        used = await asker(session).used_before(ours, "a", "n", "branch")
        cursors = [ours, *(page[-1][0] for page in pages if page)]
        for asked, cursor in zip(session.asked, cursors, strict=False):
            assert asked.named["params"] == {**named, "cursor": cursor}
            assert asked.named["headers"]["x-inngest-env"] == "branch"
        assert len(session.asked) == len(pages)
        return used

    others = [(other, "b")]
    assert await used([*others, (other, "a")]) == other
    assert await used(others, others, others, [(first, "a")]) == first
    assert await used(others, others, others, others) is None  # of no more it asks
    assert await used([*others, (old, "a")]) is None
    assert await used(others, []) is None


async def test_each_question_has_the_key_and_its_own_environment_or_the_configured_one() -> None:
    session = ScriptedSession(*(Answer(200, (b"{}",)) for _ in range(12)))
    one = asker(session, environment="staging")
    for named in ((), ("a",)):
        await one.page(ULID, 1, *named)
        await one.run("r", *named)
        await one.run_ids(ULID, *named)
        await one.run_ids(ULID, *named, thorough=True)
        await one.may_skip("app", "f", *named)
        await one.used_before(ULID, "e", "n", *named)
    headers = [asked.named["headers"] for asked in session.asked]
    assert [one["x-inngest-env"] for one in headers] == ["staging"] * 6 + ["a"] * 6
    assert {one["Authorization"] for one in headers} == {"Bearer signkey"}
    for status in (401, 403):
        for environment, whose in ((None, "."), ("b/1", " for the environment 'b/1'.")):
            with pytest.raises(InngestApiError) as refused:
                await asker(ScriptedSession(Answer(status))).page(ULID, 1, environment)
            assert str(refused.value) == f"Inngest refuses INNGEST_SIGNING_KEY{whose}"
            assert (refused.value.reached, refused.value.refused) == (True, True)


KEYS = {"EVENT_KEY": "k", "SIGNING_KEY": "signkey-test-00ff"}
SENT_TO, OWN, ASKED = (f"http://{name}.test" for name in ("events", "own", "api"))


@pytest.mark.parametrize(
    ("variables", "origin", "own"),
    [
        ({}, "http://127.0.0.1:8288/api", {}),
        ({"DEV": "http://dev:9999", **KEYS}, "http://dev:9999/api", {}),
        ({"EVENT_KEY": "k"}, None, {}),
        ({"EVENT_KEY": "k", "BASE_URL": OWN}, None, {}),
        (KEYS, "https://api.inngest.com", {}),
        ({**KEYS, "ENV": "b"}, "https://api.inngest.com", {"x-inngest-env": "b"}),
        ({**KEYS, "BASE_URL": OWN}, f"{OWN}/api", {}),
        ({**KEYS, "EVENT_API_BASE_URL": SENT_TO}, f"{SENT_TO}/api", {}),
        ({**KEYS, "EVENT_API_BASE_URL": SENT_TO, "BASE_URL": OWN}, f"{OWN}/api", {}),
        ({**KEYS, "EVENT_API_BASE_URL": SENT_TO, "API_BASE_URL": ASKED}, f"{ASKED}/api", {}),
        ({**KEYS, "BASE_URL": OWN, "API_BASE_URL": ASKED}, f"{ASKED}/api", {}),
    ],
)
async def test_questions_go_where_the_configuration_says(
    variables: dict[str, str], origin: str | None, own: dict[str, str]
) -> None:
    settings = Settings.load({f"INNGEST_{name}": value for name, value in variables.items()})
    session = ScriptedSession(Answer(404))
    one = make_rest_api(settings, session, timeout_seconds=3.0)  # type: ignore[arg-type]
    assert (one is None) is (origin is None)
    if one:
        await one.run("r")
        [(_, url, named)] = session.asked
        assert url == f"{origin}/v2/runs/r"
        key = (
            {"Authorization": f"Bearer {KEYS['SIGNING_KEY']}"} if "SIGNING_KEY" in variables else {}
        )
        assert named["headers"] == key | own
        assert named["timeout"] == aiohttp.ClientTimeout(total=3.0)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(404), "Inngest answers 404 to questions."),
        (Answer(200, (b'{"status": 500}',)), "Inngest answers 500 to questions."),
        (Answer(200, (b'{"status": 401}',)), "Inngest answers 401 to questions."),
        (Answer(200, (b"[" * 100_000,)), "An answer that is not the API's."),
        (Answer(200, (b'{"data": 7}',)), "An answer that is not the API's."),
    ],
)
async def test_any_other_answer_is_an_error_of_an_inngest_that_was_reached(
    answer: Answer, words: str
) -> None:
    with pytest.raises(InngestApiError) as caught:
        await asker(ScriptedSession(answer)).page(ULID, 1)
    assert str(caught.value) == words
    assert caught.value.reached
    assert not caught.value.refused


@pytest.mark.parametrize(
    "error", [OSError(5, "http://secret"), aiohttp.ClientError("http://secret")]
)
async def test_a_fault_of_the_way_is_an_inngest_that_was_not_reached(error: Exception) -> None:
    with pytest.raises(InngestApiError) as caught:
        await asker(ScriptedSession(error)).page(ULID, 1)
    assert str(caught.value) == f"Inngest can't be asked ({type(error).__name__})."
    assert not caught.value.reached


BEGAN, ENDED = "2026-11-24T22:30:19.5Z", "2026-11-24T22:30:21Z"
BEGAN_MS = 1_795_559_419_500
ERROR = {"code": "1", "name": "TypeError", "message": "it broke", "stack": "at /srv/worker.js"}


def no_link(run_id: str, environment: str | None) -> None:
    del run_id, environment


def one(status: str, ended_at: str | None = None, output: object = None):
    [run] = runs_of([EventRun("01A", status, BEGAN, ended_at, output)], no_link)
    return run


TOLD = {"name": "TypeError", "message": "it broke"}
ATTEMPTED = ("running", "running/retrying", "running")
WAITING = ("queued", "queued/retrying", "queued")
RESULTS = ("completed", "failed", "completed")


@pytest.mark.parametrize(
    ("word", "before", "after"),
    [
        ("SCHEDULED", WAITING, RESULTS),
        ("QUEUED", WAITING, RESULTS),
        ("RUNNING", ATTEMPTED, RESULTS),
        ("A LATER WORD", ATTEMPTED, RESULTS),
        ("COMPLETED", ATTEMPTED, ("completed",) * 3),
        ("FAILED", ("running/retrying",) * 3, ("failed",) * 3),
        ("CANCELLED", ATTEMPTED, ("cancelled",) * 3),
        ("SKIPPED", ("running/queued",) * 3, ("cancelled/queued",) * 3),
    ],
)
def test_a_run_has_ended_once_inngest_gives_its_end_whatever_its_word(word, before, after):
    """Without an output, with an error and with a result: the status, for the watch another."""
    outputs = (None, {"error": ERROR}, {"pages": 3})
    for ended_at, statuses in ((None, before), (ENDED, after)):
        for output, words in zip(outputs, statuses, strict=True):
            status, _, outcome = words.partition("/")
            told = EventRun("01A", word, BEGAN, ended_at, output)
            [run] = runs_of([told], no_link)
            shown_ = output if ended_at and status != "cancelled" else None
            if shown_ and status == "failed":
                shown_ = TOLD if output == outputs[1] else {}
            assert (run.status, run.output) == (status, shown_)
            is_whole = ended_at is not None and (output is not None or status == "cancelled")
            assert run.is_whole is is_whole
            assert outcomes_of([told]) == (outcome or status,)
            is_error = status == "failed" and output == outputs[1]
            assert stacks_of([told]) == ({"01A": ERROR["stack"]} if is_error else {})
            has_started = (outcome or status) != "queued"
            assert first_start_ms([told]) == (BEGAN_MS if has_started else None)


def test_the_first_start_is_the_earliest_of_those_that_are_known():
    starts = (ENDED, BEGAN, "yesterday", None)
    runs = [EventRun(f"01{at}", "RUNNING", start) for at, start in enumerate(starts)]
    assert first_start_ms(runs) == BEGAN_MS
    assert first_start_ms(runs[2:]) is None


def test_an_owner_sees_name_and_message_of_an_error_and_no_stack():
    for odd, shown_ in (
        ({"error": "it broke"}, {"name": "Error", "message": "it broke"}),  # of Go's SDK
        (ERROR, TOLD),
        ({"error": {"message": "m", "stack": "at /srv/worker.js"}}, {"message": "m"}),
        ({"error": 7}, {}),
        ("no error", {}),
        (None, None),
    ):
        assert one("FAILED", ENDED, odd).output == shown_
    # A result is shown as Inngest shows it.
    assert one("COMPLETED", ENDED, {"data": "text"}).output == {"data": "text"}
    assert one("COMPLETED", ENDED, {"error": ERROR}).output == {"error": ERROR}


def test_the_first_run_comes_first_with_its_function_and_its_page():
    told = [
        EventRun("01B", "RUNNING", function=Named("resize")),
        EventRun("01A", "RUNNING", function=Named("index")),
    ]
    runs = runs_of(told, lambda run_id, environment: f"{environment}/{run_id}", "branch")
    assert [(run.id, run.function, run.url) for run in runs] == [
        ("01A", "index", "branch/01A"),
        ("01B", "resize", "branch/01B"),
    ]


@pytest.mark.parametrize("moment", ["yesterday", "", "0001-01-01T00:00:00Z"])
def test_a_time_that_can_not_be_read_is_not_known(moment):
    assert one("COMPLETED", moment).ended_at is None
    assert one("COMPLETED", moment).started_at == BEGAN_MS
