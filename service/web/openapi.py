"""The OpenAPI 3.1 description, made from the models that validate, and a page to read it.

`Operation` is one row of the table of endpoints. The invariant: every route of the application has
its row (a test compares them), and every schema comes from the type that decodes or encodes.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from service.errors import OutboxUnavailableError, RefusedError
from service.web.errors import STATUS, ErrorAnswer
from service.web.security_headers import page_policy

API_VERSION = "1.0.0"
_JSON = "application/json"
_REF = "#/components/schemas/{name}"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font-family: ui-monospace, monospace; font-size: .9em }
pre { background: #f4f4f4; padding: .75rem; overflow: auto }
table { border-collapse: collapse } td, th { border: 1px solid #ccc; padding: .25rem .5rem }
th { text-align: left }
"""


@dataclass(frozen=True, slots=True)
class Header:
    """A request header: what it is for, and the pattern of what it takes."""

    text: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint: `body` and `answer` are the types that decode and encode, None without.

    `refusals` are the errors that it may answer with, `headers` the optional request headers,
    `produces` the content type of the answer.
    """

    method: str
    path: str
    summary: str
    body: type | None = None
    answer: type | None = None
    refusals: Sequence[type[RefusedError | OutboxUnavailableError]] = ()
    status: int = 200
    produces: str = _JSON
    headers: Mapping[str, Header] = field(default_factory=dict)
    also: Mapping[int, type | None] = field(default_factory=dict)


def describe(operations: Iterable[Operation]) -> dict[str, Any]:
    """The OpenAPI document."""
    table = list(operations)
    types = {kind for one in table for kind in (one.body, one.answer, *one.also.values()) if kind}
    _, schemas = _components([*types, ErrorAnswer])
    paths: dict[str, dict[str, Any]] = {}
    for one in table:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Outbox for Inngest",
            "version": API_VERSION,
            "description": "Accepts events durably and delivers them to Inngest.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


class OpenApi:
    """The handlers of /openapi.json and /docs."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        document = describe(operations)
        self._json = msgspec.json.encode(document)
        self._page = _page(document).encode()

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [web.get("/openapi.json", self.document), web.get("/docs", self.docs)]

    async def document(self, request: web.Request) -> web.Response:
        """The OpenAPI document."""
        del request
        return web.Response(body=self._json, content_type=_JSON)

    async def docs(self, request: web.Request) -> web.Response:
        """The document as a page; it needs nothing from elsewhere."""
        del request
        return web.Response(
            body=self._page,
            content_type="text/html",
            charset="utf-8",
            headers={"Content-Security-Policy": page_policy(_STYLE)},
        )


def _operation(one: Operation) -> dict[str, Any]:
    answers: dict[str, Any] = {str(one.status): _answer("Good", one.answer, one.produces)}
    for status, kind in one.also.items():
        answers[str(status)] = _answer("See the summary", kind, _JSON)
    for kind in one.refusals:
        refused = str(STATUS[kind])
        code = answers.setdefault(refused, _answer("", ErrorAnswer, _JSON))
        code["description"] = ", ".join(filter(None, (code["description"], kind.code)))
    answers["default"] = _answer("Any other failure has the same form", ErrorAnswer, _JSON)
    described: dict[str, Any] = {"summary": one.summary, "responses": answers}
    names = [part[1:-1] for part in one.path.split("/") if part.startswith("{")]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    parameters += [
        {
            "name": name,
            "in": "header",
            "description": header.text,
            "schema": {"type": "string", "pattern": header.pattern},
        }
        for name, header in one.headers.items()
    ]
    if parameters:
        described["parameters"] = parameters
    if one.body:
        described["requestBody"] = {"required": True, "content": {_JSON: _schema(one.body)}}
    return described


def _answer(description: str, kind: type | None, content_type: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": description}
    if kind is not None:
        answer["content"] = {content_type: _schema(kind)}
    return answer


def _schema(kind: type) -> dict[str, Any]:
    (schema,), _ = _components([kind])
    return {"schema": schema}


def _components(kinds: Iterable[type]) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    return msgspec.json.schema_components(kinds, schema_hook=_any, ref_template=_REF)


def _any(kind: type) -> dict[str, Any]:
    if kind is object:
        return {"description": "any JSON value"}
    raise NotImplementedError


def _page(document: dict[str, Any]) -> str:
    sections = "".join(
        _section(method, path, described)
        for path, methods in document["paths"].items()
        for method, described in methods.items()
    )
    schemas = html.escape(msgspec.json.format(msgspec.json.encode(document["components"])).decode())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>API</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(document['info']['title'])}</h1>"
        f'<p>{html.escape(document["info"]["description"])} <a href="/openapi.json">OpenAPI</a></p>'
        f"{sections}<h2>Schemas</h2><pre>{schemas}</pre></html>"
    )


def _section(method: str, path: str, described: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{status}</th><td>{html.escape(answer['description'])}</td></tr>"
        for status, answer in described["responses"].items()
    )
    return (
        f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
        f"<p>{html.escape(described['summary'])}</p><table>{rows}</table>"
    )
