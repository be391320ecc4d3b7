"""A judge of every answer of a service: its description allows it, and one log line tells it."""

from __future__ import annotations

import contextlib
import functools
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest import mock

from aiohttp import hdrs, web
from jsonschema import Draft202012Validator

from inngest_outbox.observe.logs import RequestLine, request_log
from inngest_outbox.web.server.answers import REQUEST_ID
from inngest_outbox.web.server.security_headers import SERVER, security_headers

_DESCRIPTION = "/openapi.json"
_JSON, _PAGE = "application/json", "text/html"
_ERRORS = 400
# Paths that the description leaves out: itself, and pages for people.
_FOR_PEOPLE = {"/", _DESCRIPTION, "/docs", "/outbox"}
_PROBES = {"/healthz", "/readyz", "/metrics"}
_ANY_ERROR = {"content": {_JSON: {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}}


@contextlib.asynccontextmanager
async def described_answers(app: web.Application) -> AsyncIterator[None]:
    """Fail at the end of the block where an answer of `app` was not as described."""
    faults: list[str] = []
    answered, told = Counter[tuple[object, ...]](), Counter[tuple[object, ...]]()
    [describe] = [
        route.handler
        for resource in app.router.resources()
        if resource.canonical == _DESCRIPTION
        for route in resource
        if route.method == hdrs.METH_GET
    ]

    async def judge(request: web.Request, answer: web.StreamResponse) -> None:
        description: Any = await describe(request)
        asked = f"{request.method} {request.path} {answer.status}"
        faults.extend(f"{asked} {one}" for one in _faults(request, answer, description.body))
        is_probe = request.path in _PROBES and answer.status < _ERRORS
        if isinstance(answer, web.Response) and not is_probe:
            id_ = answer.headers[REQUEST_ID]
            answered[id_, request.method, _path(request), answer.status] += 1

    def tell(line: RequestLine) -> None:
        told[line.request_id, line.method, line.route or "", line.status] += 1
        before(line)

    app.on_response_prepare.append(judge)
    before = request_log.write
    with mock.patch.multiple(request_log, enabled=True, write=tell):
        yield
    faults += [f"{one} has {told[one]} log lines" for one in answered if told[one] != answered[one]]
    assert not faults, "\n".join(faults)


def _path(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource else ""


def _is_for_people(request: web.Request) -> bool:
    return f"/{request.path.split('/')[1]}" in _FOR_PEOPLE


def _faults(request: web.Request, answer: web.StreamResponse, description: bytes) -> Iterator[str]:
    """Sentences about what is wrong with an answer."""
    body = answer.body if isinstance(answer, web.Response) else b"a stream"
    wanted = {REQUEST_ID, *security_headers(secure=False), *([hdrs.CONTENT_TYPE] if body else [])}
    if missing := wanted - {*answer.headers}:
        yield f"lacks {missing}"
    if answer.headers[hdrs.SERVER] != SERVER:
        yield "names what it is made of"
    if answer.status >= _ERRORS and answer.content_type == _PAGE:
        return  # a browser gets an error as a page
    operations, components = _parsed(description)
    answers = operations.get((request.method, _path(request)))
    if answers is None:
        if answer.status >= _ERRORS:
            yield from _misfits(_ANY_ERROR, answer, components)
        elif request.method != hdrs.METH_HEAD and not _is_for_people(request):
            yield "is not described"
        return
    described = answers.get(str(answer.status))
    if described is None and answer.status < _ERRORS:
        yield "has a status that is not described"
    else:
        yield from _misfits(described or answers["default"], answer, components)


def _misfits(described: Any, answer: web.StreamResponse, components: Any) -> Iterator[str]:
    kinds = described.get("content", {})
    body = answer.body if isinstance(answer, web.Response) else None
    if body and answer.content_type not in kinds:
        yield f"is {answer.content_type}"
    schema = kinds.get(answer.content_type, {}).get("schema", {})
    schema = schema.get("contentSchema", schema if answer.content_type == _JSON else None)
    if body and schema is not None:
        validator = Draft202012Validator({**schema, "components": components})
        for error in validator.iter_errors(json.loads(body)):
            yield f"{error.message[:200]} at {error.json_path}"


@functools.lru_cache(4)
def _parsed(description: bytes) -> tuple[dict[tuple[str, str], Any], Any]:
    document = json.loads(description)
    return {
        (method.upper(), path): operation["responses"]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }, document["components"]
