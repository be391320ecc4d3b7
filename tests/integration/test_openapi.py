"""The API's description of a whole service, against the specification and the routes."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from docs.api_description import description, whole_service
from inngest_outbox.bootstrap.service import run_service

# The description itself, and pages for people.
_NOT_DESCRIBED = ("/openapi.json", "/docs", "/outbox")
SHORT_PAGE = (
    "A request searches for a bounded time: a page that is not the last one may be short or empty."
)
EVENT_PATHS = ("/api/events", "/api/events/{id}", "/api/events/{id}/stream")


@pytest.fixture
async def app(tmp_path: Path):
    async with run_service(whole_service(tmp_path)) as service:
        yield service.app


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return asyncio.run(description(tmp_path_factory.mktemp("whole")))


def operations_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for methods in document["paths"].values() for one in methods.values()]


def routes_of(app: web.Application) -> set[tuple[str, str]]:
    return {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }


async def test_it_is_openapi_3_1_and_has_every_route_under_a_name_of_its_own(app, document):
    validate(document)
    names = [operation["operationId"] for operation in operations_of(document)]
    assert len(set(names)) == len(names)
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    routes = routes_of(app) - {("GET", "/")}
    expected = {one for one in routes if not one[1].startswith(_NOT_DESCRIBED)}
    assert document["openapi"].startswith("3.1")
    assert described == expected
    for path, methods in document["paths"].items():
        for operation in methods.values():
            known = [one for one in operation.get("parameters", ()) if one["in"] == "path"]
            assert [one["name"] for one in known] == re.findall(r"{(\w+)}", path)
    sections = Counter(tag for operation in operations_of(document) for tag in operation["tags"])
    assert sections == {"events": 7, "settings": 3, "documents": 1, "sign-in": 6, "health": 3}


def test_a_post_of_a_document_may_be_refused_for_its_document(document):
    answers = document["paths"]["/api/route"]["post"]["responses"]
    for status, code in (
        ("400", "document_name_required"),
        ("400", "document_name_invalid"),
        ("404", "document_not_found"),
        ("503", "storage_not_configured"),
        ("503", "storage_unavailable"),
    ):
        assert code in str(answers.get(status)), code


def test_who_needs_or_begins_a_session_may_find_the_store_away(document):
    """It says which sessions were ended."""
    begins = {"devSignIn", "finishSignIn"}
    told = {
        operation["operationId"]
        for operation in operations_of(document)
        if "outbox_unavailable" in str(operation["responses"].get("503"))
    }
    needs = {
        operation["operationId"]
        for operation in operations_of(document)
        if "session_required" in str(operation["responses"].get("401"))
    }
    assert needs | begins <= told


def test_every_example_is_of_its_schema(document):
    components = {"components": document["components"]}
    for operation in operations_of(document):
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in (one for body in bodies for one in body.get("content", {}).values()):
            examples = [content[key] for key in ("example",) if key in content]
            examples += [one["value"] for one in content.get("examples", {}).values()]
            for example in examples:
                Draft202012Validator({**content["schema"], **components}).validate(example)
                if inner := content["schema"].get("contentSchema"):
                    Draft202012Validator({**inner, **components}).validate(json.loads(example))


def test_the_figures_are_described_as_a_string(document):
    content = document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert content == {"text/plain": {"schema": {"type": "string"}}}


def test_fields_that_a_post_needs_are_required(document):
    schemas = document["components"]["schemas"]
    assert schemas["PostDocumentsAwsIndexBody"] == {
        "type": "object",
        "description": "Which document to index.",
        "required": ["documentName"],
        "properties": {
            "documentName": {
                "description": "The document's key in the bucket, at most 1,024 bytes of UTF-8.",
                "type": "string",
                "minLength": 1,
                "maxLength": 1024,
            },
            "sendAt": {
                "description": "Hold the event until then: milliseconds since 1970. A time in the "
                "past holds nothing.",
                "type": ["integer", "null"],
                "minimum": 0,
                "maximum": 4_102_444_800_000,
            },
        },
        "examples": [{"documentName": "reports/2026.pdf"}],
    }
    assert schemas["DevLogin"]["required"] == ["email"]
    upload = schemas["UploadBody"]
    assert upload["required"] == list(upload["properties"])
    assert upload["properties"] == {
        "documentName": {
            "description": "The document's file name.",
            "type": "string",
            "minLength": 1,
        },
        "contentType": {
            "description": "Its media type, such as application/pdf.",
            "type": "string",
            "maxLength": 255,
        },
        "size": {
            "description": "Its size in bytes.",
            "type": "integer",
            "minimum": 1,
            "maximum": 5 * 1024**3,
        },
    }
    assert schemas["Accepted"]["required"] == ["status", "eventId"]


def test_what_an_event_its_list_and_its_stream_hold_is_described(document):
    schemas = document["components"]["schemas"]
    event, page = schemas["EventView"], schemas["EventPage"]
    assert [event["description"], *page["description"].split("\n\n")] == [
        "An event. Fields of later states are null.",
        "A page of events, newest first. The list does not ask Inngest: `run` is null.",
        SHORT_PAGE,
    ]
    fields = {**event["properties"], **page["properties"]}
    assert fields["deliveredAt"]["anyOf"] == [fields["acceptedAt"], {"type": "null"}]
    assert {one: told["description"] for one, told in fields.items() if "description" in told} == {
        "inngestId": "The id under which Inngest has the event.",
        "attempts": "Tries that the event itself decided.",
        "acceptedAt": "Milliseconds since 1970.",
        "reason": "Why the event is dead: a code, then Inngest's words.",
        "run": "The event's first run, null before it or where Inngest can't be asked.",
        "otherRuns": "The runs of further functions that the event started.",
        "noRun": "True when Inngest has held the event for long and runs nothing.",
        "idUsed": "True when it runs nothing, and held another event with this id before.",
        "final": "True when nothing more is expected to change.",
        "nextCursor": "For the next page; null on the last one.",
    }
    data = {"type": "string", "contentMediaType": "application/json"}
    data["contentSchema"] = {"$ref": "#/components/schemas/EventView"}
    properties = {"id": {"type": "string", "description": "Changes with the event."}, "data": data}
    stream = document["paths"][EVENT_PATHS[2]]["get"]["responses"]["200"]["content"]
    assert stream["text/event-stream"] == {
        "schema": {"type": "object", "required": ["data"], "properties": properties}
    }


def test_all_that_change_but_two_describe_the_body_that_they_take(document):
    changing = (
        one
        for methods in document["paths"].values()
        for way, one in methods.items()
        if way != "get"
    )
    without = {one["operationId"] for one in changing if "requestBody" not in one}
    assert without == {"takeBackEvent", "signOut"}


def test_what_a_query_may_hold_is_described(document):
    found = {
        one["name"]: one["schema"]
        for path in EVENT_PATHS
        for one in document["paths"][path]["get"]["parameters"]
    }
    number, text = {"type": "integer", "minimum": 0}, {"type": "string"}
    states = ["pending", "delivering", "sent", "delivered", "dead"]
    assert found == {
        "state": {"enum": states},
        "name": text,
        "since": {**number, "maximum": 2**53 - 1},
        "limit": {**number, "minimum": 1, "maximum": 100, "default": 50},
        "cursor": text,
        "id": {**text, "minLength": 1, "maxLength": 255},
        "wait": {**number, "maximum": 60},
        "If-None-Match": text,
        "Last-Event-ID": text,
    }
    parameters = [one for told in operations_of(document) for one in told.get("parameters", ())]
    assert {one["name"] for one in parameters if one["in"] == "header"} == {
        *("If-None-Match", "Last-Event-ID", "Idempotency-Key"),
        *("x-inngest-env", "x-inngest-event-id-seed"),
    }


def test_the_headers_of_answers_are_described(document):
    described = {
        (one["operationId"], status): {
            name: header["description"]
            for name, header in answer["headers"].items()
            if name != "X-Request-Id"
        }
        for one in operations_of(document)
        for status, answer in one["responses"].items()
    }
    schemas = {
        (name, json.dumps(header["schema"]))
        for one in operations_of(document)
        for answer in one["responses"].values()
        for name, header in answer["headers"].items()
    }
    assert schemas == {
        ("Retry-After", '{"type": "integer", "minimum": 1}'),
        ("Idempotent-Replayed", '{"const": "true"}'),
        ("X-Request-Id", '{"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,64}$"}'),
        *((name, '{"type": "string"}') for name in ("Location", "ETag")),
    }
    retry, tag = {"Retry-After": "Seconds to wait before a retry."}, "Changes with the event."
    waits = {of for of, headers in described.items() if headers == retry}
    busy = {of for of in described if of[1] in ("429", "503") and of[0] != "isReady"}
    assert waits == busy
    used = "Set when the Idempotency-Key was used before: no second event was made."
    posted = {"Location": "Where to follow the event.", "Idempotent-Replayed": used}
    assert {of: headers for of, headers in described.items() if headers and of not in waits} == {
        ("postDocumentsAwsIndex", "200"): posted,
        ("sendMachineEvents", "200"): {"Idempotent-Replayed": "Set when no new event was made."},
        ("getEvent", "200"): {"ETag": tag},
        ("getEvent", "304"): {"ETag": tag},
        ("signIn", "302"): {"Location": "Where to go."},
        ("finishSignIn", "302"): {"Location": "Where to go."},
    }


def test_an_event_of_a_machine_may_be_sent_later_and_one_of_inngests_protocol_not(document):
    for path, takes_send_at in (("/api/events", True), ("/e/{key}", False)):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        one, many = body["schema"]["oneOf"]
        assert (one["required"], many["maxItems"]) == (["name"], 5_000)
        assert one == many["items"]
        assert ("sendAt" in one["properties"]) is takes_send_at


async def test_its_page_loads_files_of_the_service_alone(app, aiohttp_client):
    client = await aiohttp_client(app)
    answer = await client.get("/docs")
    page = await answer.text()
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page)
    [(described, shown_in)] = re.findall(r'url: "([^"]+)", dom_id: "#(\w+)"', page)
    assert f'<div id="{shown_in}">' in page
    assert "validatorUrl: null" in page  # else its address goes to a site that checks it
    assert (await client.get(described)).content_type == "application/json"
    assert all(one.startswith(("/docs/", "/openapi.json", "data:")) for one in loaded)
    for path in (one for one in loaded if one.startswith("/docs/")):
        file = await client.get(path)
        assert (file.status, file.headers["Cache-Control"]) == (200, "no-cache")
        assert file.content_type.endswith("css" if path.endswith(".css") else "javascript")
        known = {"If-None-Match": file.headers["ETag"]}
        assert (await client.get(path, headers=known)).status == 304
    [policy] = answer.headers.getall("Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'self' 'sha256-")


async def test_uploads_without_a_bucket_name_the_variables_that_are_missing(app, aiohttp_client):
    client = await aiohttp_client(app)
    answer = await client.post("/api/uploads", json={})
    refused = await answer.json()
    assert (answer.status, refused["code"]) == (503, "storage_not_configured")
    assert "AWS_S3_REGION, AWS_S3_BUCKET" in refused["error"]
