"""Questions to Inngest's REST API: which events it holds, and their runs."""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec
import pytest

from service.errors import InngestApiError
from service.inngest.held import HeldEvent
from service.inngest.rest_api import RestApi
from service.inngest.runs import EventRun, Named, RunStatus, runs_of, stacks_of
from service.outbox.inngest_id import encode_ulid
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


async def test_a_run_is_read_with_its_output_and_may_not_be_there_yet() -> None:
    run = {"id": "r1", "status": "COMPLETED", "endedAt": "2026-11-27T05:00:00Z", "output": {"n": 7}}
    body = msgspec.json.encode({"data": run})
    session = ScriptedSession(Answer(200, (body,)), Answer(404, (b'{"errors": []}',)))
    one = asker(session)
    assert await one.run("r1") == EventRun(
        "r1", "COMPLETED", ended_at="2026-11-27T05:00:00Z", output={"n": 7}
    )
    assert await one.run("r1") is None
    [asked, _] = session.asked
    assert asked.url == "http://inngest.test/api/v2/runs/r1"
    assert asked.named["params"] == {"includeOutput": "true"}


async def test_a_run_that_has_ended_and_is_said_to_go_on_is_asked_for_again() -> None:
    run = {"id": "r1", "status": "QUEUED", "endedAt": "2026-11-27T05:00:00Z"}
    session = ScriptedSession(
        Answer(200, (msgspec.json.encode({"data": run}),)),
        Answer(200, (b'{"data": {"run_id": "r1", "status": "Failed"}}',)),
    )
    told = await asker(session).run("r1")
    assert told is not None
    assert told.status == "Failed"
    assert session.asked[1].url == "http://inngest.test/v1/runs/r1"


async def test_after_a_slow_answer_smaller_pages_are_asked_for_until_answers_are_fast() -> None:
    session = ScriptedSession(TimeoutError(), *(Answer(200, (shown(1),)) for _ in range(3)))
    one = asker(session, timeout_seconds=0.0)
    with pytest.raises(InngestApiError, match="in time"):
        await one.page(ULID, 50)
    one._seconds = 60.0
    for _ in range(3):
        await one.page(ULID, 50)
    assert [asked.named["params"]["limit"] for asked in session.asked] == ["50", "25", "50", "50"]


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
        (b'{"data": {"configuration": {"rateLimit": {"limit": 1}}}}', True),
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
    ours, other = encode_ulid(DAY_MS * 3 << 80), encode_ulid(DAY_MS * 2 + 1 << 80)
    old = encode_ulid(DAY_MS * 2 - 1 << 80)

    async def used(*seen: tuple[str, str]) -> str | None:
        events = [{"internal_id": ulid, "id": event_id} for ulid, event_id in seen]
        page = Answer(200, (msgspec.json.encode({"data": events}),))
        last = Answer(200, (b'{"data": []}',))
        return await asker(ScriptedSession(page, last)).used_before(ours, "a", "n")

    assert await used((other, "b"), (other, "a")) == other
    assert await used((other, "b"), (old, "a")) is None
    assert await used((other, "b")) is None


async def test_each_question_has_the_key_and_its_own_environment_or_the_configured_one() -> None:
    session = ScriptedSession(*(Answer(200, (b"{}",)) for _ in range(4)))
    one = asker(session, environment="staging")
    await one.page(ULID, 1, "a")
    await one.run("r", "b")
    await one.run_ids(ULID, "c")
    await one.page(ULID, 1)
    headers = [asked.named["headers"] for asked in session.asked]
    assert [one["x-inngest-env"] for one in headers] == ["a", "b", "c", "staging"]
    assert {one["Authorization"] for one in headers} == {"Bearer signkey"}
    session = ScriptedSession(Answer(200, (b"{}",)))
    await asker(session, signing_key=None).page(ULID, 1)
    assert session.asked[0].named["headers"] == {}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(401), "Inngest refuses INNGEST_SIGNING_KEY."),
        (Answer(403), "Inngest refuses INNGEST_SIGNING_KEY."),
        (Answer(404), "Inngest answers 404 to questions."),
        (Answer(200, (b'{"status": 500}',)), "Inngest answers 500 to questions."),
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
    assert caught.value.refused is words.startswith("Inngest refuses")


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


@pytest.mark.parametrize(
    ("word", "before", "after"),
    [
        ("SCHEDULED", RunStatus.QUEUED, RunStatus.COMPLETED),
        ("QUEUED", RunStatus.QUEUED, RunStatus.COMPLETED),
        ("RUNNING", RunStatus.RUNNING, RunStatus.COMPLETED),
        ("COMPLETED", RunStatus.RUNNING, RunStatus.COMPLETED),
        ("FAILED", RunStatus.RUNNING, RunStatus.FAILED),
        ("CANCELLED", RunStatus.RUNNING, RunStatus.CANCELLED),
        ("SKIPPED", RunStatus.RUNNING, RunStatus.CANCELLED),
        ("A LATER WORD", RunStatus.RUNNING, RunStatus.COMPLETED),
    ],
)
def test_a_run_has_ended_once_inngest_gives_its_end_whatever_its_word(word, before, after):
    assert one(word).status is before
    assert one(word, ENDED).status is after


def test_a_run_is_whole_with_its_end_and_its_output_but_for_a_cancelled_one_that_has_none():
    assert not one("COMPLETED", None, {"pages": 3}).is_whole
    assert not one("COMPLETED", ENDED).is_whole
    assert one("COMPLETED", ENDED, {"pages": 3}).is_whole
    assert one("CANCELLED", ENDED).is_whole
    run = one("CANCELLED", ENDED, {"error": "event not found in state store"})
    assert (run.output, run.is_whole) == (None, True)


def test_the_error_of_an_attempt_is_the_run_s_once_it_has_ended_whatever_the_word():
    run = one("RUNNING", None, {"error": ERROR})
    assert (run.status, run.output, run.ended_at) == (RunStatus.RUNNING, None, None)
    assert one("RUNNING", ENDED, {"error": ERROR}).status is RunStatus.FAILED


def test_an_owner_sees_name_and_message_of_an_error_and_no_stack():
    told = {"name": "TypeError", "message": "it broke"}
    assert one("FAILED", ENDED, {"error": ERROR}).output == told
    from_go = one("FAILED", ENDED, {"error": "it broke"}).output
    assert from_go == {"name": "Error", "message": "it broke"}
    for odd in (ERROR, "no error", {"error": 7}):
        assert "worker.js" not in str(one("FAILED", ENDED, odd).output)
    runs = [EventRun("01A", "FAILED", BEGAN, ENDED, {"error": ERROR}), EventRun("01B", "RUNNING")]
    assert stacks_of(runs) == {"01A": "at /srv/worker.js"}
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
