"""Event types of a file at work: posts to a whole service, and what reaches Inngest."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
import yaml

from tests.support.declared_service import declared_service
from tests.support.storage import eventually

ROOT = Path(__file__).parents[2]
README, PAGE = ROOT / "README.md", ROOT / "docs" / "guide" / "event-types.md"
FAR_MS = 4_000_000_000_000
STORAGE = {"AWS_S3_REGION": "eu-west-1", "AWS_S3_BUCKET": "documents"}
REPORT = {
    "name": "report/requested",
    "path": "/api/reports",
    "body": {
        "type": "object",
        "required": ["report"],
        "additionalProperties": False,
        "properties": {"report": {"type": "string", "enum": ["sales", "stock"]}},
    },
}
CONTRACT = {
    "name": "contract/signed",
    "path": "/api/contracts",
    "document": True,
    "body": {
        "type": "object",
        "required": ["documentName"],
        "properties": {"documentName": {"type": "string"}, "parties": {"type": "array"}},
    },
    "data": {
        "file": {"name": "$body.documentName", "bucket": "$document.bucket"},
        "region": "$document.region",
        "parties": "$body.parties",
        "settings": "$appSettings",
        "by": "$user.email",
        "source": "test",
    },
}
SALES = {"report": "sales"}


@pytest.fixture
async def service(tmp_path, inngest_api):
    async with declared_service(tmp_path, inngest_api, [REPORT, CONTRACT], **STORAGE) as service:
        yield service


def example(name: str, page: Path = PAGE) -> str:
    marked = page.read_text(encoding="utf-8").split(f"<!-- check: {name} -->\n```yaml\n")[1]
    return marked.split("```")[0]


async def test_a_post_of_ten_declared_lines_reaches_inngest(tmp_path, inngest_api):
    declared = example("event types file")
    assert len(declared.splitlines()) <= 10
    [entry] = yaml.safe_load(declared)["types"]
    async with declared_service(tmp_path, inngest_api, [entry]) as service:
        event = await service.delivered("/api/reports", {"report": "sales", "month": "2026-11"})
        refused = await service.refusal("/api/reports", {"report": "sales", "month": "may"})
    assert event["name"] == "report/requested"
    assert event["data"] == {"report": "sales", "month": "2026-11"}
    assert event["user"] == {"id": "ada", "email": "ada@example.com", "name": "Ada"}
    assert refused[:2] == (400, "invalid_field")


async def test_the_event_type_of_the_readme_is_taken(tmp_path, inngest_api):
    [entry] = yaml.safe_load(example("event types file", README))["types"]
    async with declared_service(tmp_path, inngest_api, [entry]) as service:
        event = await service.delivered("/api/reports", SALES)
    assert (event["name"], event["data"]) == ("report/requested", SALES)


async def test_the_data_of_the_documentation_is_taken_from_its_sources(tmp_path, inngest_api):
    body = {"type": "object", "properties": {"report": {}, "address": {"type": "object"}}}
    entry = {**REPORT, "body": body, **yaml.safe_load(example("event data"))}
    async with declared_service(tmp_path, inngest_api, [entry]) as service:
        posted = {"report": 1, "address": {"city": "Paris"}}
        event = await service.delivered("/api/reports", posted)
    data = {"report": 1, "city": "Paris", "requestedBy": "ada", "language": "auto", "source": "web"}
    assert event["data"] == data


async def test_the_documents_event_of_the_documentation_has_its_new_name(tmp_path, inngest_api):
    types = yaml.safe_load(example("documents event"))["types"]
    async with declared_service(tmp_path, inngest_api, types, **STORAGE) as service:
        event = await service.delivered("/api/route", {"documentName": "a.pdf"})
    assert event["name"] == "files/uploaded"
    assert event["data"]["documentName"] == "a.pdf"


async def test_the_data_is_the_body_or_what_it_is_mapped_to(service):
    event = await service.delivered("/api/reports", {**SALES, "sendAt": 0})
    assert event["data"] == SALES
    event = await service.delivered("/api/contracts", {"documentName": "a.pdf", "parties": [1]})
    assert event["data"].pop("settings")
    assert event["data"] == {
        "file": {"name": "a.pdf", "bucket": "documents"},
        "region": "eu-west-1",
        "parties": [1],
        "by": "ada@example.com",
        "source": "test",
    }


async def test_a_body_that_is_not_of_the_schema_is_refused(service):
    reports, contracts = "/api/reports", "/api/contracts"
    for path, body, status, code in (
        (reports, {}, 400, "invalid_field"),
        (reports, {"report": "other"}, 400, "invalid_field"),
        (reports, {**SALES, "more": 1}, 400, "invalid_field"),
        (reports, {**SALES, "sendAt": "soon"}, 400, "invalid_field"),
        (reports, [SALES], 400, "invalid_json"),
        (contracts, {}, 400, "document_name_required"),
        (contracts, {"documentName": "../a"}, 400, "document_name_invalid"),
        (contracts, {"documentName": "a", "parties": 1}, 400, "invalid_field"),
        (contracts, {"documentName": f"users/{'0' * 32}/a"}, 404, "document_not_found"),
    ):
        assert (await service.refusal(path, body))[:2] == (status, code), body
    secrets = [{"report": "s3cr3t"}, {"report": "sales", "s3cr3t": 1}, {"report": ["s3cr3t"]}]
    told = await asyncio.gather(*(service.refusal(reports, body) for body in secrets))
    assert told[0][2] == 'The field report is wrong: it is not one of "sales" or "stock".'
    assert not re.search("s3cr3t", str(told))


async def test_a_body_is_nested_at_most_500_levels_deep(tmp_path, inngest_api):
    deep = {"a": {"b": {"c": {"d": "$body"}}}}
    anything = {**REPORT, "body": {"type": "object"}, "data": deep}
    async with declared_service(tmp_path, inngest_api, [anything]) as service:
        headers = {"Cookie": await service._cookie("ada"), "Content-Type": "application/json"}
        for levels, status in ((499, 200), (500, 400), (900, 400), (5000, 400)):
            body = b'{"a":' + b"[" * levels + b"]" * levels + b"}"
            for key in ({}, {"Idempotency-Key": str(levels)}):
                answer = await service.client.post(
                    "/api/reports", data=body, headers={**headers, **key}
                )
                assert answer.status == status, levels
        wide = {"a": [[]] * 5000}
        assert (await service.post("/api/reports", wide)).status == 200


async def test_nobody_posts_without_a_session_or_from_another_site(service):
    assert (await service.refusal("/api/reports", SALES, user=None))[:2] == (
        401,
        "session_required",
    )
    cookie = await service._cookie("ada")
    elsewhere = {"Cookie": cookie, "Origin": "https://elsewhere.example"}
    answer = await service.client.post("/api/reports", json=SALES, headers=elsewhere)
    assert (answer.status, (await answer.json())["code"]) == (403, "cross_site_request")


async def test_a_repeat_with_its_key_is_the_same_event(service):
    first = await (await service.post("/api/reports", SALES, key="k")).json()
    again = await service.post("/api/reports", {"report": "sales"}, key="k")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert await again.json() == first
    refused = await service.refusal("/api/reports", {"report": "stock"}, key="k")
    assert refused[:2] == (422, "idempotency_key_reused")
    others = await service.post("/api/reports", {"report": "stock"}, key="k", user="kim")
    assert others.status == 200
    # Another event type may have the same body.
    assert (await service.post("/api/route", {"documentName": "a"}, key="d")).status == 200
    refused = await service.refusal("/api/contracts", {"documentName": "a"}, key="d")
    assert refused[:2] == (422, "idempotency_key_reused")


async def test_a_repeat_is_the_same_event_after_its_type_has_got_another_name(
    tmp_path, inngest_api
):
    async with declared_service(tmp_path, inngest_api, [REPORT]) as service:
        first = await (await service.post("/api/reports", SALES, key="k")).json()
    renamed = {**REPORT, "name": "report/wanted"}
    async with declared_service(tmp_path, inngest_api, [renamed]) as service:
        assert await (await service.post("/api/reports", SALES, key="k")).json() == first


async def test_an_event_is_delayed_until_its_time(service):
    held = await service.post("/api/reports", {**SALES, "sendAt": FAR_MS})
    await service.delivered("/api/reports", SALES)
    async with service.client.get(
        held.headers["Location"], headers={"Cookie": await service._cookie("ada")}
    ) as answer:
        assert (await answer.json())["state"] == "pending"


async def test_the_quota_of_a_user_counts_every_event_type(tmp_path, inngest_api):
    limits = {"OUTBOX_MAX_PENDING_PER_USER": "1", **STORAGE}
    held = {**SALES, "sendAt": FAR_MS}
    async with declared_service(tmp_path, inngest_api, [REPORT], **limits) as service:
        assert (await service.post("/api/reports", held)).status == 200
        refused = await service.refusal("/api/route", {"documentName": "a"})
        assert refused[:2] == (429, "too_many_pending")
        assert (await service.post("/api/reports", held, user="kim")).status == 200


async def test_the_events_of_each_type_are_counted_by_name_and_repeats_are_not(service):
    for path, body in [("/api/reports", SALES), ("/api/route", {"documentName": "a"})]:
        for key in ("one", "two", "one"):
            assert (await service.post(path, body, key=f"{path}-{key}")).status == 200
    metrics = await (await service.client.get("/metrics")).text()
    assert 'outbox_accepted_by_type_total{name="report/requested"} 2.0' in metrics
    assert 'outbox_accepted_by_type_total{name="documents/aws.index"} 2.0' in metrics


async def test_the_rate_of_a_user_counts_every_event_type(tmp_path, inngest_api):
    slow = {"RATE_LIMIT_PER_USER": "0.001", **STORAGE}
    async with declared_service(tmp_path, inngest_api, [REPORT], **slow) as service:
        assert (await service.post("/api/reports", SALES)).status == 200
        refused = await service.refusal("/api/route", {"documentName": "a"})
        assert refused[:2] == (429, "rate_limited")
        assert (await service.post("/api/reports", SALES, user="kim")).status == 200


async def test_a_type_without_documents_needs_no_bucket(tmp_path, inngest_api):
    off = {"path": "/api/route", "enabled": False}
    async with declared_service(tmp_path, inngest_api, [off, REPORT, CONTRACT]) as service:
        refused = await service.refusal("/api/contracts", {"documentName": "a"})
        assert refused[:2] == (503, "storage_not_configured")
        assert (await service.client.get("/readyz")).status == 503
    (tmp_path / "outbox.db").unlink()
    async with declared_service(tmp_path, inngest_api, [off, REPORT]) as service:
        await service.delivered("/api/reports", SALES)
        assert (await service.refusal("/api/route", {"documentName": "a"}))[:2] == (
            404,
            "not_found",
        )

        async def ready() -> int:
            return (await service.client.get("/readyz")).status

        await eventually(ready, lambda status: status == 200)
