"""The outermost middleware: each request has an id, an answer in one form, a count and a line."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from inngest_outbox import errors
from inngest_outbox.errors import NotFoundError, OutboxUnavailableError
from inngest_outbox.observe.logs import RequestLine
from inngest_outbox.web.server import middleware
from inngest_outbox.web.server.connection import Connection
from inngest_outbox.web.server.errors import STATUS, error_response, refusal_of
from inngest_outbox.web.server.middleware import (
    error_middleware,
    event_id_key,
    request_id_key,
)
from tests.support.figures import Figures
from tests.support.made_request import made_request


class Lines:
    def __init__(self) -> None:
        self.enabled = True
        self.lines: list[RequestLine] = []

    def write(self, line: RequestLine) -> None:
        self.lines.append(line)


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """The log of each test, whatever another one has left configured."""
    found = Lines()
    monkeypatch.setattr(middleware, "request_log", found)
    return found


def raises(error: BaseException) -> Any:
    async def handler(request: web.Request) -> web.Response:
        raise error

    return handler


async def fine(request: web.Request) -> web.Response:
    return web.Response(text=request[request_id_key])


async def answered(handler: Any, *, recorder: Any = None, **request: Any) -> web.Response:
    answer = error_middleware(recorder or Figures())
    found = await answer(made_request(**request), handler)
    assert isinstance(found, web.Response)
    return found


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [
        ("a-B_9.:", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("", False),
        ("a b", False),
        ("\xe9", False),
        (None, False),
    ],
)
async def test_a_plain_request_id_is_kept_and_another_is_made(
    given: str | None, *, is_kept: bool, lines: Lines
) -> None:
    headers = {} if given is None else {"X-Request-Id": given}
    answer = await answered(fine, headers=headers)
    made = answer.headers["X-Request-Id"]
    assert (made == given) is is_kept
    assert is_kept or len(made) == 36
    assert answer.text == made
    assert lines.lines[0].request_id == made


@pytest.mark.parametrize(
    ("error", "status", "code", "sentence"),
    [
        (NotFoundError(), 404, "not_found", "There is nothing here."),
        (OutboxUnavailableError("Full."), 503, "outbox_unavailable", "Full."),
        (web.HTTPNotFound(), 404, "not_found", "There is nothing here."),
        (web.HTTPBadRequest(), 400, "bad_request", "The request is not valid HTTP."),
        (web.RequestPayloadError(), 400, "invalid_json", "The body is not a JSON object in UTF-8."),
    ],
)
async def test_a_refusal_is_answered_and_counted_by_its_code(
    error: BaseException, status: int, code: str, sentence: str, lines: Lines
) -> None:
    counts = Figures()
    answer = await answered(raises(error), recorder=counts)
    assert answer.status == status
    told = {"status": "error", "code": code, "error": sentence}
    assert json.loads(answer.body) == told  # type: ignore[arg-type]
    assert counts.got == [("count", "refused", 1, ("code", code))]
    assert (lines.lines[0].status, lines.lines[0].code) == (status, code)


async def test_a_fault_is_logged_with_the_request_id_and_is_no_refusal(lines: Lines) -> None:
    counts = Figures()
    with capture_logs() as logs:
        answer = await answered(raises(ZeroDivisionError("a secret")), recorder=counts)
    sentence = "Something failed here. The request id tells us what."
    told = {"status": "error", "code": "internal_error", "error": sentence}
    assert (answer.status, json.loads(answer.body)) == (500, told)  # type: ignore[arg-type]
    made = answer.headers["X-Request-Id"]
    assert logs == [
        {"event": "request_failed", "log_level": "error", "request_id": made, "exc_info": True}
    ]
    assert counts.got == []
    assert (lines.lines[0].status, lines.lines[0].code) == (500, "internal_error")


@pytest.mark.parametrize(
    ("gone", "error", "status", "code"),
    [
        (True, ConnectionResetError, 408, "body_timeout"),
        (False, ConnectionResetError, 500, "internal_error"),
        (True, ZeroDivisionError, 500, "internal_error"),
        (True, TimeoutError, 500, "internal_error"),
        (True, web.RequestPayloadError, 400, "invalid_json"),
    ],
)
async def test_a_client_that_left_in_its_body_is_no_fault(
    *, gone: bool, error: type[Exception], status: int, code: str, lines: Lines
) -> None:
    async def handler(request: web.Request) -> web.Response:
        if gone:
            request._protocol.transport = None
        raise error

    counts = Figures()
    with capture_logs() as logs:
        answer = await answered(handler, recorder=counts)
    assert (answer.status, bool(logs)) == (status, status == 500)
    assert counts.got == ([("count", "refused", 1, ("code", code))] if status < 500 else [])
    assert [line.code for line in lines.lines] == [code]


async def test_a_browser_gets_each_failure_as_a_page(lines: Lines) -> None:
    pages = mock.Mock()
    pages.page.side_effect = lambda _, answer, id_: web.Response(text=f"{answer.status} {id_}")
    for accept in ("text/html", "*/*"):
        for handler, status in (
            (raises(ZeroDivisionError()), 500),
            (raises(NotFoundError()), 404),
            (fine, 200),
        ):
            request = made_request(headers={"Accept": accept})
            answer: Any = await error_middleware(Figures(), pages)(request, handler)
            told = f"{status} {answer.headers['X-Request-Id']}"
            assert (answer.text == told) is (accept == "text/html" and status != 200)
    assert [line.code for line in lines.lines] == ["internal_error", "not_found", None] * 2


@pytest.mark.parametrize(
    ("error", "code"), [(ZeroDivisionError, "internal_error"), (NotFoundError, "not_found")]
)
async def test_an_error_in_an_answer_that_has_begun_ends_it_and_has_its_line(
    error: type[Exception], code: str, lines: Lines
) -> None:
    async def handler(request: web.Request) -> web.Response:
        request.writer.output_size = 1
        raise error

    with pytest.raises(ConnectionError):
        await answered(handler)
    assert [line.code for line in lines.lines] == [code]


@pytest.mark.parametrize("redirect", [web.HTTPFound("/x"), web.HTTPNotModified()])
async def test_a_redirect_is_left_to_the_server(redirect: web.HTTPException) -> None:
    with pytest.raises(type(redirect)):
        await answered(raises(redirect))


@pytest.mark.parametrize(
    ("path", "status", "enabled", "is_written"),
    [
        ("/healthz", 200, True, False),
        ("/readyz", 200, True, False),
        ("/metrics", 200, True, False),
        ("/readyz", 503, True, True),
        ("/readyz", 400, True, True),
        ("/readyz/things", 200, True, True),
        ("/api/things", 200, False, False),
        ("/readyz", 503, False, False),
    ],
)
async def test_all_but_quiet_probes_have_a_line(
    path: str, status: int, *, enabled: bool, is_written: bool, lines: Lines
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status)

    lines.enabled = enabled
    for method in ("GET", "HEAD"):
        await answered(handler, path=path, method=method)
    assert len(lines.lines) == 2 * is_written


@pytest.mark.parametrize(
    ("arrived", "clock", "ms"), [(5.0, (12.500009,), 7500.01), (None, (12.0, 12.5), 500.0)]
)
async def test_the_line_has_the_route_the_event_and_the_time_since_the_request_arrived(
    arrived: float | None,
    clock: tuple[float, ...],
    ms: float,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    instants = iter(clock)
    monkeypatch.setattr(middleware, "time", SimpleNamespace(monotonic=lambda: next(instants)))

    async def handler(request: web.Request) -> web.Response:
        request[event_id_key] = "event-1"
        return web.Response()

    protocol = mock.Mock(spec=Connection, arrived_at=arrived)
    request = made_request(method="PUT", protocol=protocol)
    request.match_info.route.resource.canonical = "/api/{id}"  # type: ignore[union-attr,misc]
    await error_middleware(Figures())(request, handler)
    [line] = lines.lines
    assert (line.event, line.level, line.method, line.route) == (
        *("request", "info"),
        *("PUT", "/api/{id}"),
    )
    assert line.timestamp.endswith("Z")
    assert (line.status, line.ms, line.code, line.event_id) == (200, ms, None, "event-1")


async def test_a_request_without_a_route_has_a_line_too_and_an_answer_that_began_stays_as_it_is(
    lines: Lines,
) -> None:
    class Begun(web.Response):
        prepared = True

    async def handler(request: web.Request) -> web.Response:
        return Begun()

    request = made_request()
    request.match_info.route.resource = None  # type: ignore[misc]
    answer = await error_middleware(Figures())(request, handler)
    assert lines.lines[0].route is None
    assert "X-Request-Id" not in answer.headers


def _leaves(kind: type[errors.ServiceError]) -> list[type[errors.ServiceError]]:
    below = kind.__subclasses__()
    return [kind] if not below else [leaf for one in below for leaf in _leaves(one)]


def test_every_refusal_has_its_status_and_a_code_of_its_own() -> None:
    refusals = [*_leaves(errors.RefusedError), errors.OutboxUnavailableError]
    assert [kind.__name__ for kind in refusals if kind not in STATUS] == []
    codes = [kind.code for kind in STATUS]
    assert len(codes) == len(set(codes))


def test_a_refusal_says_when_to_come_again_and_what_is_taken() -> None:
    unknown = refusal_of(web.HTTPMethodNotAllowed("X", ["PUT", "GET", "POST", "DELETE"]))
    for error, status, more in (
        (errors.RateLimitedError(retry_after_seconds=7), 429, {"Retry-After": "7"}),
        (errors.OutboxUnavailableError(), 503, {"Retry-After": "2"}),
        (errors.StorageUnavailableError(), 503, {"Retry-After": "5"}),
        (errors.ProviderUnavailableError(), 503, {"Retry-After": "5"}),
        (errors.EncodingRefusedError(), 415, {"Accept-Encoding": "identity"}),
        (errors.JsonRequiredError(), 415, {}),
        (unknown, 405, {"Allow": "DELETE, GET, POST, PUT"}),
    ):
        answer = error_response(error)
        told = {"Content-Type": "application/json", **more}
        assert (answer.status, dict(answer.headers)) == (status, told)


def test_the_tree_in_the_docstring_names_every_class() -> None:
    named = errors.__doc__ or ""
    missing = [leaf.__name__ for leaf in _leaves(errors.ServiceError) if leaf.__name__ not in named]
    assert missing == []
