"""The OpenAPI 3.1 document of a table of endpoints.

Every schema comes from the type that decodes or encodes, and every error code from the error that
is raised. So the description can't differ from the code.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from inngest_outbox.errors import OutboxUnavailableError, RefusedError
from inngest_outbox.event_types.schema_tree import rewritten
from inngest_outbox.web.openapi.endpoint import (
    JSON,
    MAY_BE_RETRIED,
    RETRY_AFTER,
    Access,
    Answer,
    Body,
    Endpoint,
    Kind,
    NamedSchema,
    Parameter,
    ResponseHeader,
)
from inngest_outbox.web.server.errors import INTERNAL_ERROR, SERVER_CODES, STATUS, ErrorAnswer

API_VERSION = "1.0.0"
_TITLE = "Outbox for Inngest"
_ABOUT = (
    "Accepts events durably and delivers them to Inngest. Every failure has the same form: "
    "`status` is `error`, `code` is for programs, `error` is a sentence for a person."
)
_REQUEST_ID = ResponseHeader(
    "X-Request-Id",
    "The request's id in the service's log.",
    {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,64}$"},
)
_SESSION = "session"
_NEXT_AUTH = "nextAuth"
_AUTH_JS = "authJs"
_BEARER = "userToken"
_EVENT_KEY = "eventKey"
_METRICS = "metricsToken"
_REF = "#/components/schemas/{name}"


def _cookie(name: str, text: str) -> dict[str, Any]:
    return {"type": "apiKey", "in": "cookie", "name": name, "description": text}


def _bearer(text: str) -> dict[str, Any]:
    return {"type": "http", "scheme": "bearer", "description": text}


_SECURITY_SCHEMES: dict[str, Any] = {
    _SESSION: _cookie("outbox_session", "A sign-in at this service; `__Host-` in production."),
    _NEXT_AUTH: _cookie("next-auth.session-token", "A sign-in of next-auth 4."),
    _AUTH_JS: _cookie("authjs.session-token", "A sign-in of Auth.js 5."),
    _BEARER: _bearer("A token of the issuer that JWT_ISSUER names."),
    _EVENT_KEY: _bearer("One of the keys in OUTBOX_EVENT_KEYS."),
    _METRICS: _bearer("METRICS_TOKEN. Requests from the same machine need none."),
}
_USERS: list[dict[str, list[str]]] = [
    {name: []} for name in (_SESSION, _NEXT_AUTH, _AUTH_JS, _BEARER)
]
_REQUIREMENTS: dict[Access, list[dict[str, list[str]]]] = {
    Access.ANYBODY: [],
    Access.USER: _USERS,
    Access.OWNER: [*_USERS, {_EVENT_KEY: []}],
    Access.OPERATOR: _USERS,
    Access.EVENT_KEY: [{_EVENT_KEY: []}],
    Access.METRICS: [{_METRICS: []}, {}],
}


def describe(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The OpenAPI document."""
    table = list(endpoints)
    schemas = Schemas(table)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for endpoint in table:
        paths[endpoint.path][endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": _TITLE, "version": API_VERSION, "description": _ABOUT},
        "tags": [{"name": tag} for tag in dict.fromkeys(one.tag for one in table)],
        "paths": dict(paths),
        "components": {"schemas": schemas.components, "securitySchemes": _SECURITY_SCHEMES},
    }


def _operation(endpoint: Endpoint, schemas: Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": endpoint.name,
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "security": _REQUIREMENTS[endpoint.access],
        "responses": _responses(endpoint, schemas),
    }
    if endpoint.parameters:
        described["parameters"] = [_parameter(one) for one in endpoint.parameters]
    if endpoint.body:
        described["requestBody"] = _request_body(endpoint.body, schemas)
    if endpoint.access is Access.OPERATOR:
        described["description"] = "For operators, who are named in OPERATOR_EMAILS."
    return described


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.text,
        "required": parameter.place == "path",
        "schema": dict(parameter.schema),
    }


def _request_body(body: Body, schemas: Schemas) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schemas.of(body.kind)}
    if body.example is not None:
        content["example"] = body.example
    return {"required": True, "content": {JSON: content}}


def _responses(endpoint: Endpoint, schemas: Schemas) -> dict[str, Any]:
    responses = {str(code): _answer(one, schemas) for code, one in endpoint.answers.items()}
    for status, codes in _codes(endpoint).items():
        responses[str(status)] = _error(codes, [RETRY_AFTER] if status in MAY_BE_RETRIED else [])
    unreadable = {code: text for code, (_, text) in SERVER_CODES.items() if code != INTERNAL_ERROR}
    responses["default"] = _error(unreadable, [])
    return responses


def _codes(endpoint: Endpoint) -> dict[int, dict[str, str]]:
    """The codes of each status, with the sentence of each."""
    found: dict[int, dict[str, str]] = defaultdict(dict)
    for kind in endpoint.errors:
        found[STATUS[kind]][kind.code] = (kind.__doc__ or "").strip()
    status, sentence = SERVER_CODES[INTERNAL_ERROR]
    found[status][INTERNAL_ERROR] = sentence
    return dict(sorted(found.items()))


def _answer(answer: Answer, schemas: Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.text, "headers": _headers(answer.headers)}
    if answer.kind is not None:
        schema, example = schemas.of(answer.kind), answer.example
        if answer.is_json_in_text:
            schema = {"type": "string", "contentMediaType": JSON, "contentSchema": schema}
            example = msgspec.json.encode(example).decode()
        content: dict[str, Any] = {"schema": schema}
        if example is not None:
            content["example"] = example
        described["content"] = {answer.content_type: content}
    return described


def _headers(headers: Iterable[ResponseHeader]) -> dict[str, Any]:
    return {
        one.name: {"description": one.text, "schema": dict(one.schema)}
        for one in (*headers, _REQUEST_ID)
    }


def _error(codes: dict[str, str], headers: Iterable[ResponseHeader]) -> dict[str, Any]:
    examples = {
        code: {"value": {"status": "error", "code": code, "error": sentence}}
        for code, sentence in codes.items()
    }
    return {
        "description": "; ".join(f"`{code}`: {text}" for code, text in codes.items()),
        "headers": _headers(headers),
        "content": {JSON: {"schema": error_schema(codes), "examples": examples}},
    }


class Schemas:
    """The schemas of the endpoints. `components` has those with a name."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        table = list(endpoints)
        bodies = [one.body for one in table if one.body]
        answers = [answer for one in table for answer in one.answers.values()]
        kinds = [*(one.kind for one in bodies), *(one.kind for one in answers), ErrorAnswer]
        types = [*dict.fromkeys(kind for kind in kinds if isinstance(kind, type))]
        described, self.components = _components(types)
        self._described = dict(zip(types, described, strict=True))
        for body in bodies:
            if isinstance(body.kind, type) and body.required:
                _require(self.components[body.kind.__name__], body.required)
        for kind in kinds:
            if isinstance(kind, NamedSchema):
                self.components[kind.name] = rewritten(kind.schema, _REF.format(name=kind.name))
        self.components["ErrorCode"] = {"type": "string", "enum": _all_codes()}
        self.components["ErrorAnswer"]["properties"]["code"] = {
            "$ref": _REF.format(name="ErrorCode")
        }

    def of(self, kind: Kind) -> dict[str, Any]:
        """The schema of `kind`: a reference to its component, or the given schema."""
        if isinstance(kind, NamedSchema):
            return {"$ref": _REF.format(name=kind.name)}
        return dict(kind) if isinstance(kind, Mapping) else self._described[kind]


def error_schema(codes: Iterable[str]) -> dict[str, Any]:
    """The schema of a failure with one of `codes`."""
    return {
        "type": "object",
        "required": ["status", "code", "error"],
        "properties": {
            "status": {"const": "error"},
            "code": {"type": "string", "enum": sorted(codes)},
            "error": {"type": "string", "description": "A sentence for a person."},
        },
    }


def _require(schema: dict[str, Any], names: Iterable[str]) -> None:
    schema["required"] = list(names)
    for name in names:
        schema["properties"][name].pop("default", None)


def _all_codes() -> list[str]:
    answered = (kind for kind in STATUS if issubclass(kind, (RefusedError, OutboxUnavailableError)))
    return sorted({kind.code for kind in answered} | set(SERVER_CODES))


def _components(kinds: Iterable[type]) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """The schemas of the kinds, and of all with a name. Older Pythons indent their docstrings."""
    schemas, named = msgspec.json.schema_components(
        kinds, schema_hook=_any_value, ref_template=_REF
    )
    for schema in named.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return schemas, named


def _any_value(kind: type) -> dict[str, Any]:
    if kind is object:
        return {"description": "Any JSON value."}
    raise NotImplementedError
