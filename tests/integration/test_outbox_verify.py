"""`outbox verify` proves that Inngest holds what was delivered, and sends again what it lost."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from typer.testing import CliRunner, Result

from inngest_outbox.console.commands import verify as verify_module
from inngest_outbox.console.commands.main import app
from inngest_outbox.console.operations import bulk, verification
from inngest_outbox.dev.fake_inngest.event_api import SEED_HEADER
from inngest_outbox.dev.fake_inngest.server import FakeInngest, FakeOptions
from inngest_outbox.outbox.inngest_id import decode_ulid, seed
from inngest_outbox.outbox.model import Filter, State
from tests.support.storage import (
    Outbox,
    PostgresStorage,
    SqliteStorage,
    append_all,
    ask,
    claim,
    deliver,
)

KEY = "signkey-test-00112233445566778899aabbccddeeff"


@pytest.fixture
async def guarded() -> AsyncIterator[FakeInngest]:
    async with FakeInngest(options=FakeOptions(signing_key=KEY)) as api:
        yield api


@pytest.fixture
async def outbox(path: Path) -> AsyncIterator[Outbox]:
    async with SqliteStorage(path).open() as opened:
        yield opened


async def delivered(outbox: Outbox, count: int) -> list[str]:
    events = await append_all(outbox, count)
    await deliver(outbox, await claim(outbox, ask(count)))
    return [event.id for event in events]


async def hold(api: FakeInngest, outbox: Outbox, *event_ids: str) -> None:
    """Inngest gets these events under the ULIDs of their rows."""
    async with aiohttp.ClientSession() as http:
        for event_id in event_ids:
            [row] = await outbox.inspector.rows(Filter(ids=(event_id,)))
            headers = {SEED_HEADER: seed(decode_ulid(row.inngest_id or ""))}
            event = json.dumps({"id": event_id, "name": row.name})
            async with http.post(f"{api.url}/e/key", data=event, headers=headers) as response:
                assert response.status == 200


async def verify(
    path: Path | str, api: FakeInngest, *options: str, key: str | None = KEY
) -> tuple[int, dict[str, Any]]:
    code, out = await printed(path, api, *options, "--json", key=key)
    _, brace, said = out.partition("{\n")  # after what the store logs
    return code, json.loads(brace + said) if brace else {}


async def printed(
    path: Path | str, api: FakeInngest, *options: str, key: str | None = KEY
) -> tuple[int, str]:
    result = await asked(path, api, *options, key=key)
    return result.exit_code, result.stdout


async def asked(path: Path | str, api: FakeInngest, *options: str, key: str | None = KEY) -> Result:
    environ = {
        "INNGEST_BASE_URL": api.url,
        "INNGEST_EVENT_KEY": "key",
        "INNGEST_SIGNING_KEY": key,
        "INNGEST_DEV": None,
    }
    url = path if isinstance(path, str) else f"sqlite:///{path}"
    arguments = ["verify", *options, "--url", url]
    return await asyncio.to_thread(CliRunner(env=environ).invoke, app, arguments)


async def test_all_that_was_delivered_is_held(
    outbox: Outbox, path: Path, guarded: FakeInngest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(verification, "PAGE", 50)
    made = verify_module.make_rest_api

    def making(*parts: Any, timeout_seconds: float) -> Any:
        assert timeout_seconds == 30.0
        return made(*parts, timeout_seconds=timeout_seconds)

    monkeypatch.setattr(verify_module, "make_rest_api", making)
    await hold(guarded, outbox, *await delivered(outbox, 120))
    code, said = await verify(path, guarded)
    assert code == 0
    assert (said["checked"], said["held"], said["missing"], said["unknown"]) == (120, 120, [], [])
    assert (said["runs"], said["resent"], said["payloadRemoved"]) == (None, None, None)


async def test_what_inngest_lost_is_missing(outbox: Outbox, path: Path, guarded: FakeInngest):
    ids = await delivered(outbox, 21)
    await hold(guarded, outbox, *ids[:3], *ids[4:])
    await append_all(outbox, 2)
    by_name = [word for one in ids for word in ("--ids", one)]
    for asked in ([], by_name):
        code, said = await verify(path, guarded, *asked)
        assert (code, said["held"], said["missing"]) == (1, 20, [ids[3]])


async def test_what_is_missing_is_told_where_it_can_not_be_sent_again(
    outbox: Outbox, path: Path, guarded: FakeInngest
):
    [lost] = await delivered(outbox, 1)
    code, said = await verify(path, guarded, "--resend")
    assert (code, said["missing"], said["resent"]) == (2, [lost], None)
    told = await asked(path, guarded, "--resend")
    assert told.stdout.endswith(f"missing: {lost}\n")
    assert told.stderr.endswith("\noutbox: Not all that is missing was sent again.\n")


async def test_what_is_missing_is_sent_again_when_told(path: Path, guarded: FakeInngest):
    async with SqliteStorage(path).open() as outbox:
        ids = await delivered(outbox, 3)
        await hold(guarded, outbox, ids[0])
    code, said = await verify(path, guarded, "--resend", "--actor", "ada")
    assert (code, sorted(said["resent"])) == (1, sorted(ids[1:]))
    code, said = await verify(path, guarded, "--resend")
    assert (code, said["resent"], said["payloadRemoved"]) == (0, [], 0)
    told = "1 delivered event: 1 held by Inngest, 0 missing, 0 unknown.\n0 events sent again.\n"
    assert await printed(path, guarded, "--resend") == (0, told)
    async with SqliteStorage(path).open() as outbox:
        batch = await claim(outbox)
        assert [entry.event_id for entry in batch.entries] == ids[1:]
        [kept] = await outbox.inspector.rows(Filter(ids=(ids[0],)))
        assert kept.state is State.DELIVERED
        [act] = await outbox.inspector.audit(1)
        assert act.actor == "ada"
        assert act.detail.startswith("missing in Inngest")


async def test_what_became_of_the_runs_is_counted(outbox: Outbox, path: Path, guarded: FakeInngest):
    ids = await delivered(outbox, 2)
    await hold(guarded, outbox, *ids)
    code, said = await verify(path, guarded, "--runs")
    assert (code, said["runs"]) == (0, {"completed": 2})
    assert "Runs: 2 completed.\n" in (await printed(path, guarded, "--runs"))[1]


async def test_some_events_can_be_named(outbox: Outbox, path: Path, guarded: FakeInngest):
    ids = await delivered(outbox, 3)
    await hold(guarded, outbox, ids[0])
    waiting = [one.id for one in await append_all(outbox, 2)]
    named = [word for one in (waiting[0], ids[0], waiting[1]) for word in ("--ids", one)]
    others = "".join(f"outbox: {one} is pending, not delivered.\n" for one in waiting)
    for form in ((), ("--json",)):
        found = await asked(path, guarded, *named, *form)
        assert (found.exit_code, found.stdout, found.stderr) == (3, "", others)
    code, said = await verify(path, guarded, "--ids", ids[0])
    assert (code, said["checked"]) == (0, 1)
    code, said = await verify(path, guarded, "--ids", ids[0], "--ids", ids[1][:-1])
    assert (code, said["missing"]) == (1, [ids[1]])
    unknown = "outbox: there is no event none in this outbox.\noutbox: there is no event no in "
    empty, several = "outbox: give an event's id, or how", "outbox: 0 is the beginning of 5 ids:\n"
    for one, told in ((ids[0], unknown), ("", empty), ("0", several)):
        found = await asked(path, guarded, "--ids", one, "--ids", "none", "--ids", "no")
        assert (found.exit_code, found.stdout, found.stderr[: len(told)]) == (3, "", told)


async def test_what_is_missing_is_named_and_what_can_not_be_sent_again_is_counted(
    path: Path, guarded: FakeInngest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bulk, "PAGE", 15)
    async with SqliteStorage(path).open() as outbox:
        gone = await delivered(outbox, 1)
        await outbox.repairs.purge_payloads(older_than_seconds=-1)
        ids = await delivered(outbox, 20)
    code, out = await printed(path, guarded, "--runs")
    missing = [f"missing: {one}" for one in [*gone, *ids]]
    assert code == 1
    assert out.startswith("21 delivered events: 0 held by Inngest, 21 missing, 0 unknown.\n")
    assert "Runs: none.\n" in out
    assert sorted(missing)[1:] == sorted(re.findall("missing: .*", out))
    assert "and 1 more; --json names all." in out
    _, said = await verify(path, guarded, "--resend")
    assert (len(said["resent"]), said["payloadRemoved"]) == (20, 1)
    _, out = await printed(path, guarded, "--resend", "--runs")
    again = "0 events sent again.\n1 event not sent again: payload_removed.\n"
    assert out.endswith(f"missing: {gone[0]}\n{again}")
    async with SqliteStorage(path).open() as outbox:
        acts = await outbox.inspector.audit(9)
    assert [sorted(act.ids) for act in acts if act.ids] == [sorted(ids)]


async def test_a_window_leaves_out_what_was_accepted_before_it_or_after(
    outbox: Outbox, path: Path, guarded: FakeInngest
):
    [one, *_] = await delivered(outbox, 3)
    for window in (("--since", "0s"), ("--until", "1h"), ("--since", "2h", "--until", "1h")):
        for ids in ((), ("--ids", one)):
            code, said = await verify(path, guarded, *window, *ids)
            assert (code, said["checked"]) == (0, 0)
    code, said = await verify(path, guarded, "--since", "1h", "--until", "0s")
    assert (code, said["checked"]) == (1, 3)


async def test_without_the_right_key_or_an_inngest_it_can_not_tell(
    outbox: Outbox, path: Path, guarded: FakeInngest
):
    ids = await delivered(outbox, 2)
    for key in ("signkey-test-ff", None):
        code, said = await verify(path, guarded, key=key)
        assert (code, said.get("missing") or []) == (3, [])
    sentence = "outbox: Inngest can't be asked: INNGEST_SIGNING_KEY is not set.\n"
    assert (await asked(path, guarded, key=None)).stderr == sentence
    await guarded.close()
    code, said = await verify(path, guarded, "--resend")
    assert (code, sorted(said["unknown"]), said["missing"]) == (3, sorted(ids), [])
    assert (said["resent"], said["payloadRemoved"]) == ([], 0)
    assert f"Unknown, because: {said['reason']}\n" in (await printed(path, guarded))[1]


async def test_a_postgresql_outbox_is_verified_and_repaired_too(
    postgres_url: str, guarded: FakeInngest
):
    async with PostgresStorage(postgres_url).open() as outbox:
        ids = await delivered(outbox, 3)
        await hold(guarded, outbox, *ids[:2])
        code, said = await verify(postgres_url, guarded, "--resend")
        assert (code, said["held"], said["missing"], said["resent"]) == (1, 2, ids[2:], ids[2:])
        assert [entry.event_id for entry in (await claim(outbox)).entries] == ids[2:]


async def test_what_is_missing_is_worse_than_what_is_not_known(
    path: Path, guarded: FakeInngest, monkeypatch: pytest.MonkeyPatch
):
    async def answered(*_: object, **__: object) -> verification.Verification:
        return verification.Verification(9, 4, missing, unknown, runs, "a\x1b")

    monkeypatch.setattr(verify_module, "_verify", answered)
    runs = {"x\x1b": 2_000, "failed": 1}
    twenty = [*"abcdefghijklmnopqrst"]  # all are named
    for missing, unknown, code in ((["a"], ["b"], 1), ([], ["b"], 3), (twenty, [], 1), ([], [], 0)):
        counts = f"4 held by Inngest, {len(missing)} missing, {len(unknown)} unknown."
        said = "Unknown, because: a\ufffd\nRuns: 1 failed, 2,000 x\ufffd.\n"
        named = "".join(f"missing: {one}\n" for one in missing)
        found = await printed(path, guarded)
        assert found == (code, f"9 delivered events: {counts}\n{said}{named}")
