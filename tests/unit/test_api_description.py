"""The description of one endpoint, whole."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from inngest_outbox.errors import NotFoundError, RateLimitedError
from inngest_outbox.web.openapi.document import describe
from inngest_outbox.web.openapi.endpoint import (
    Access,
    Answer,
    Body,
    Endpoint,
    Parameter,
    ResponseHeader,
)
from inngest_outbox.web.server.errors import SERVER_CODES, STATUS

JSON = "application/json"
ID = {
    "X-Request-Id": {
        "description": "The request's id in the service's log.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,64}$"},
    }
}
RETRY = {
    "Retry-After": {
        "description": "Seconds to wait before a retry.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
USERS = [{"session": []}, {"nextAuth": []}, {"authJs": []}, {"userToken": []}]


class Thing(msgspec.Struct):
    """A thing.

    It has a size.
    """

    size: int
    name: str = "x"


def endpoint(access: Access) -> Endpoint:
    return Endpoint(
        method="PUT",
        path="/things/{id}",
        name="putThing",
        tag="things",
        access=access,
        summary="Put a thing",
        parameters=[Parameter("id", "Its id.", place="path"), Parameter("dry", "Only look.")],
        body=Body(Thing, {"size": 1}, ("size", "name")),
        answers={
            200: Answer(
                "Put",
                {"type": "object"},
                {"ok": 1},
                headers=[ResponseHeader("ETag", "Its tag.")],
                content_type="text/plain",
                is_json_in_text=True,
            ),
            204: Answer("Nothing to do"),
        },
        errors=(NotFoundError, RateLimitedError),
    )


def failure(headers: dict[str, Any], codes: dict[str, str]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["status", "code", "error"],
        "properties": {
            "status": {"const": "error"},
            "code": {"type": "string", "enum": sorted(codes)},
            "error": {"type": "string", "description": "A sentence for a person."},
        },
    }
    examples = {
        code: {"value": {"status": "error", "code": code, "error": text}}
        for code, text in codes.items()
    }
    return {
        "description": "; ".join(f"`{code}`: {text}" for code, text in codes.items()),
        "headers": headers,
        "content": {JSON: {"schema": schema, "examples": examples}},
    }


def test_an_endpoint_is_described_as_it_answers() -> None:
    document = describe([endpoint(Access.OPERATOR)])
    assert document["tags"] == [{"name": "things"}]
    text = {"type": "string", "contentMediaType": JSON, "contentSchema": {"type": "object"}}
    etag = {"ETag": {"description": "Its tag.", "schema": {"type": "string"}}}
    named = {"name": "dry", "in": "query", "description": "Only look.", "required": False}
    assert document["paths"]["/things/{id}"]["put"] == {
        "operationId": "putThing",
        "tags": ["things"],
        "summary": "Put a thing",
        "description": "For operators, who are named in OPERATOR_EMAILS.",
        "security": USERS,
        "parameters": [
            {**named, "name": "id", "in": "path", "description": "Its id.", "required": True}
            | {"schema": {"type": "string"}},
            {**named, "schema": {"type": "string"}},
        ],
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": {"$ref": "#/components/schemas/Thing"}, "example": {"size": 1}}
            },
        },
        "responses": {
            "200": {
                "description": "Put",
                "headers": etag | ID,
                "content": {"text/plain": {"schema": text, "example": '{"ok":1}'}},
            },
            "204": {"description": "Nothing to do", "headers": ID},
            "404": failure(ID, {"not_found": "There is nothing here."}),
            "429": failure(
                ID | RETRY, {"rate_limited": "You send too many requests. Try again shortly."}
            ),
            "500": failure(
                ID, {"internal_error": "Something failed here. The request id tells us what."}
            ),
            "default": failure(
                ID,
                {
                    "bad_request": "The request is not valid HTTP.",
                    "expectation_failed": "This Expect header is not supported.",
                    "headers_timeout": "The request's headers did not arrive in time.",
                    "headers_too_large": "The request's headers are too large.",
                },
            ),
        },
    }
    schemas = document["components"]["schemas"]
    assert schemas["ErrorAnswer"]["properties"]["code"] == {
        "$ref": "#/components/schemas/ErrorCode"
    }
    codes = {kind.code for kind in STATUS} | SERVER_CODES.keys()
    assert schemas["ErrorCode"] == {"type": "string", "enum": sorted(codes)}
    thing = schemas["Thing"]
    assert thing["description"] == "A thing.\n\nIt has a size."
    assert thing["required"] == ["size", "name"]
    assert "default" not in thing["properties"]["name"]


@pytest.mark.parametrize(
    ("access", "security"),
    [
        (Access.ANYBODY, []),
        (Access.USER, USERS),
        (Access.OWNER, [*USERS, {"eventKey": []}]),
        (Access.EVENT_KEY, [{"eventKey": []}]),
        (Access.METRICS, [{"metricsToken": []}, {}]),
    ],
)
def test_who_may_ask_is_described(access: Access, security: list[object]) -> None:
    [one] = describe([endpoint(access)])["paths"]["/things/{id}"].values()
    assert one["security"] == security
    assert "description" not in one


def test_the_ways_to_prove_who_asks_are_described() -> None:
    document = describe([])
    cookies = {
        "session": ("outbox_session", "A sign-in at this service; `__Host-` in production."),
        "nextAuth": ("next-auth.session-token", "A sign-in of next-auth 4."),
        "authJs": ("authjs.session-token", "A sign-in of Auth.js 5."),
    }
    bearers = {
        "userToken": "A token of the issuer that JWT_ISSUER names.",
        "eventKey": "One of the keys in OUTBOX_EVENT_KEYS.",
        "metricsToken": "METRICS_TOKEN. Requests from the same machine need none.",
    }
    cookie, bearer = {"type": "apiKey", "in": "cookie"}, {"type": "http", "scheme": "bearer"}
    assert document["components"]["securitySchemes"] == {
        **{one: {**cookie, "name": name, "description": of} for one, (name, of) in cookies.items()},
        **{one: {**bearer, "description": of} for one, of in bearers.items()},
    }
    assert document["info"] == {
        "title": "Outbox for Inngest",
        "version": "1.0.0",
        "description": "Accepts events durably and delivers them to Inngest. Every failure has the "
        "same form: `status` is `error`, `code` is for programs, `error` is a sentence for a "
        "person.",
    }
