"""The bodies that POST /api/route of the running service takes, and those that it refuses."""

from __future__ import annotations

import io
import json

import pytest

from service.dev.fake_inngest.server import FakeInngest
from tests.support.poster import Poster

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEEP = b'{"documentName": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"null", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'"documentName"', "invalid_json"),
        (b'{"documentName": "a"} x', "invalid_json"),
        (b'{"documentName": NaN}', "invalid_json"),
        (b'{"documentName": "\xff"}', "invalid_json"),
        (b'\xff\xfe{\x00"\x00', "invalid_json"),
        (DEEP, "invalid_json"),
        (b"{}", "document_name_required"),
        (b'{"documentName": null}', "document_name_required"),
        (b'{"documentName": ""}', "document_name_required"),
        (b'{"documentName": " \\t"}', "document_name_required"),
        (b'{"documentName": 7}', "document_name_invalid"),
        (b'{"documentName": ["a"]}', "document_name_invalid"),
        (b'{"documentName": "a\\u0000"}', "document_name_invalid"),
        (b'{"documentName": "a\\n"}', "document_name_invalid"),
        (b'{"documentName": "a\\ud800"}', "document_name_invalid"),
        (b'{"documentName": "a/../b"}', "document_name_invalid"),
        (b'{"documentName": "./b"}', "document_name_invalid"),
        (b'{"documentName": "' + b"x" * 1025 + b'"}', "document_name_invalid"),
        ('{"documentName": "' + "ü" * 513 + '"}', "document_name_invalid"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_body_is_refused(poster: Poster, body: bytes | str, code: str) -> None:
    data = body.encode() if isinstance(body, str) else body
    headers = {"Content-Type": "application/json"}
    status, found = await poster.refused(data=io.BytesIO(data), headers=headers)
    assert status == 400
    assert found == code or {found, code} == {"document_name_required", "document_name_invalid"}


@pytest.mark.parametrize(
    "name",
    [
        "x",
        "a b",
        "a/b/c.pdf",
        "..a",
        "a..",
        ".hidden",
        "x" * 1024,
        "ü" * 512,
        "🦊",
        "a\\b",
        "%2e%2e",
    ],
)
async def test_a_good_name_is_taken_and_arrives_unchanged(
    poster: Poster, inngest: FakeInngest, name: str
) -> None:
    status, body = await poster.post({"documentName": name})
    assert status == 200
    arrival = await inngest.ledger.wait_for_id(body["eventId"])
    assert arrival is not None
    assert json.loads(arrival.event)["data"]["documentName"] == name
