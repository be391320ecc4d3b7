"""Encrypted data: readable by who has the key, and nowhere between."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from inngest_outbox.bootstrap.operations import needed_keys
from inngest_outbox.console.operations.actions import Payloads
from inngest_outbox.encryption import MARK, Encryption
from inngest_outbox.errors import ConfigurationError
from inngest_outbox.event_types.types_file import check_encryption, load_event_types
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.model import Dead, Settlement
from inngest_outbox.web.intake.lenient_json import BadEventError
from inngest_outbox.web.intake.sealed_events import SealedEvents
from tests.support.declared_service import declared_service
from tests.support.outbox_command import outbox_command
from tests.support.service_command import service_command
from tests.support.storage import claim, storage_at
from tests.support.storage import event as new_event

KEY, NEW = "my-secret-key", "another-secret-key"
CRON = "0123456789abcdef"
CANARY = "canary-3141592653"
REPORT: dict[str, Any] = {
    "name": "report/requested",
    "path": "/api/reports",
    "body": {
        "type": "object",
        "required": ["report"],
        "properties": {"report": {"type": "string"}, "month": {"type": "string"}},
    },
}
PART = {**REPORT, "name": "in/part", "path": "/api/part", "encrypt": ["report", "city"]}
SECRETS = {"report": CANARY, "city": CANARY}
BODY = {**SECRETS, "month": "may"}


def opened(event: Any, key: str = KEY) -> object:
    return Encryption([key]).decrypted(event["data"]["encrypted"])


async def test_the_data_is_encrypted_for_inngest_and_in_the_file(tmp_path, inngest_api):
    types = [
        REPORT,
        PART,
        {**REPORT, "name": "open/one", "path": "/api/open", "encrypt": False},
    ]
    async with declared_service(tmp_path, inngest_api, types, OUTBOX_ENCRYPTION_KEY=KEY) as service:
        whole = await service.delivered("/api/reports", BODY)
        part = await service.delivered("/api/part", BODY)
        files = b"".join(one.read_bytes() for one in tmp_path.glob("outbox.db*"))
        declined = await service.delivered("/api/open", BODY)
    assert list(whole["data"]) == ["encrypted"]
    assert opened(whole) == BODY
    assert (part["data"]["month"], opened(part)) == ("may", SECRETS)
    assert b"report/requested" in files
    assert CANARY.encode() not in files
    assert declined["data"] == BODY


@pytest.mark.parametrize("shown", ["true", "false"])
async def test_operators_read_encrypted_data_only_where_that_is_set(tmp_path, inngest_api, shown):
    given = {"OUTBOX_SHOW_DECRYPTED": shown, "OPERATOR_EMAILS": "ada@example.com"}
    async with declared_service(
        tmp_path, inngest_api, [REPORT], OUTBOX_ENCRYPTION_KEY=KEY, **given
    ) as service:
        event = await service.delivered("/api/reports", BODY)
        page = await service.post(f"/outbox/events/{event['id']}/payload", None)
        assert page.status == 200
        assert (CANARY in await page.text()) is (shown == "true")


@pytest.mark.parametrize("keys", [KEY, f"{NEW},{KEY}"])
async def test_a_repeat_is_known_after_a_key_was_set_or_rotated(tmp_path, inngest_api, keys):
    before = {} if keys == KEY else {"OUTBOX_ENCRYPTION_KEY": KEY}
    answers, event = [], {"name": "report/requested", "data": BODY}
    machine = {"OUTBOX_EVENT_KEYS": f"cron:{CRON}"}
    for environ in (before, {"OUTBOX_ENCRYPTION_KEY": keys}):
        async with declared_service(
            tmp_path, inngest_api, [REPORT], **environ, **machine
        ) as service:
            answer = await service.post("/api/reports", BODY, key="k-1")
            answers.append((await answer.json(), answer.headers.get("Idempotent-Replayed")))
            other = await service.post("/api/reports", {"report": "other"}, key="k-1")
            assert other.status == 422
            sent = await service.post("/api/events", event, user=f"Bearer {CRON}", key="k-1")
            assert sent.status == 200
    (first, _), second = answers
    assert second == (first, "true")
    message = b"/api/reports\0" + msgspec.json.encode(BODY, order="sorted")
    for digested in (message, json.dumps(event).encode()):
        assert is_digested(digested, tmp_path) is (keys == KEY)


def is_digested(message: bytes, folder: Path) -> bool:
    """True when a digest without a key is in the file: whoever reads it can try what it is of."""
    files = b"".join(one.read_bytes() for one in folder.glob("outbox.db*"))
    return hashlib.sha256(message).hexdigest().encode() in files


async def test_a_machines_event_is_encrypted_where_its_type_asks_for_it(tmp_path, inngest_api):
    types = [
        {**REPORT, "encrypt": True},
        {**REPORT, "name": "open/one", "path": "/api/open"},
        PART,
    ]
    environ = {"OUTBOX_ENCRYPTION_KEY": KEY, "OUTBOX_EVENT_KEYS": "cron:0123456789abcdef"}
    async with declared_service(tmp_path, inngest_api, types, **environ) as service:
        events = [
            {"name": "report/requested", "id": "a", "data": BODY},
            {"name": "open/one", "id": "b", "data": BODY},
            {"name": "in/part", "id": "d", "data": BODY},
            {"name": "report/requested", "id": "e", "data": {"encrypted": "by nobody"}},
            {"name": "report/requested", "id": "f", "data": None},
            {"name": "report/requested", "id": "g"},
            {"name": "report/requested", "id": "h", "data": {"encrypted": {MARK: False}}},
        ]
        sealed, plain, part, claims, null, without, denies = await service.sent(
            "0123456789abcdef", events
        )
        [again] = await service.sent("0123456789abcdef", [{**sealed, "id": "c"}])
    assert opened(sealed) == BODY
    assert plain["data"] == BODY
    assert again["data"] == sealed["data"]
    assert (part["data"]["month"], opened(part)) == ("may", SECRETS)
    assert opened(claims) == {"encrypted": "by nobody"}
    assert opened(denies) == {"encrypted": {MARK: False}}
    assert [one.get("data") for one in (null, without)] == [None, None]


def test_a_type_that_asks_for_encryption_needs_a_key(tmp_path: Path) -> None:
    file = tmp_path / "types.json"
    file.write_text(json.dumps({"types": [{**REPORT, "encrypt": True}, PART]}))
    types = load_event_types(str(file))
    check_encryption(types, has_key=True)
    file.write_text(json.dumps({"types": [{**REPORT, "encrypt": False}]}))
    check_encryption(load_event_types(str(file)), has_key=False)
    with pytest.raises(ConfigurationError, match=r"KEY: required by report/requested, in/part$"):
        check_encryption(types, has_key=False)


async def test_the_checks_name_the_keys_that_waiting_events_need(
    tmp_path, inngest_api, monkeypatch
):
    async def appended(**environ: str) -> None:
        async with declared_service(tmp_path, inngest_api, [REPORT], **environ) as service:
            assert (await service.post("/api/reports", BODY)).status == 200

    url = f"sqlite:///{tmp_path / 'outbox.db'}"
    machine = {"OUTBOX_EVENT_KEYS": "cron:0123456789abcdef"}
    async with declared_service(tmp_path, inngest_api, [REPORT], **machine) as service:
        await outbox_command(url, "pause")
        own = {"__ENCRYPTED__": True, "__STRATEGY__": "inngest/libsodium", "data": "eA=="}
        event = {"name": "own/key", "data": {"encrypted": own}}
        await service.client.post("/e/0123456789abcdef", json=event)
    assert (await needed_keys(url, [])).missing == 0
    await appended(OUTBOX_ENCRYPTION_KEY=KEY)
    for keys, words, missing in (
        ([KEY], "1 waiting event needs key 1", 0),
        ([NEW, KEY], "no waiting event needs key 1; 1 waiting event needs key 2", 0),
        ([KEY, NEW], "1 waiting event needs key 1; no waiting event needs key 2", 0),
        ([NEW], "no waiting event needs key 1", 1),
        ([], "", 1),
    ):
        needs = await needed_keys(url, keys)
        assert (needs.words, needs.missing) == (words, missing)
    lacks = (
        "1 waiting event needs another key than OUTBOX_ENCRYPTION_KEY has: add it after the others"
    )
    needed = "no waiting event needs key 1; 1 waiting event needs key 2"
    for keys, code, told in ((NEW, 1, lacks), (f"{NEW},{KEY}", 0, needed), ("", 1, lacks)):
        given = {"OUTBOX_URL": url, "OUTBOX_ENCRYPTION_KEY": keys}
        done = await asyncio.to_thread(service_command, "check", **given)
        assert done.exit_code == code
        assert f"encryption: {told}\n" in done.stderr
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEY", NEW)
    code, out, _ = await outbox_command(url, "check")
    assert code == 1
    assert f"{lacks}; no waiting event needs key 1 | " in out
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEY", f"{NEW},{KEY}")
    await outbox_command(url, "resume")
    _, out, _ = await outbox_command(url, "check")
    assert out.startswith(f"OUTBOX OK - nothing is late, nothing is dead; {needed} | ")
    monkeypatch.setenv("OUTBOX_ENCRYPTION_KEY", "  ")
    assert "needs" not in (await outbox_command(url, "check"))[1]
    async with storage_at(url).open() as outbox:
        batch = await claim(outbox)
        dead = [Dead(one.seq, 1, "rejected", "no") for one in batch.entries]
        await outbox.queue.settle(Settlement(batch.claim, dead=dead))
    assert (await needed_keys(url, [NEW])).missing == 1


async def test_the_audit_tells_a_look_at_decrypted_data_from_any_other(tmp_path):
    data = Encryption([KEY]).encrypt({"phone": "867-5309"}, None)
    payload = json.dumps({"name": "a", "data": data}).encode()
    sent = msgspec.structs.replace(new_event(), payload=payload)
    async with storage_at(f"sqlite:///{tmp_path / 'outbox.db'}").open() as outbox:
        await outbox.intake.append(sent)
        for key, how in ((KEY, ", decrypted"), (NEW, "")):
            encryption = Encryption([key])
            payloads = Payloads(outbox.inspector, outbox.trail, NullRecorder(), encryption)
            await payloads.show(sent.id, actor="ada")
            [look] = await outbox.inspector.audit(1)
            assert look.detail == f"looked at the payload{how}"


@pytest.mark.parametrize(("size", "fits"), [(2_300_000, True), (2_400_000, False)])
def test_an_event_has_at_most_3_mib_once_it_is_encrypted(size: int, *, fits: bool) -> None:
    declared = SimpleNamespace(name="a", encrypt=True, encrypted_fields=None)
    sealed = SealedEvents(Encryption([KEY]), [declared])  # type: ignore[list-item]
    payload = b'{"name":"a","data":{"x":"%s"}}' % (b"x" * size)
    event = msgspec.structs.replace(new_event(), name="a", payload=payload)
    if fits:
        assert len(sealed.seal(event).payload) > size
    else:
        with pytest.raises(BadEventError, match="larger than 3145728 bytes encrypted"):
            sealed.seal(event)
