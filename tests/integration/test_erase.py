"""`outbox erase`: an owner is gone, from the rows, the records and the bytes of the file."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from inngest_outbox.console.commands import owners
from inngest_outbox.console.operations.erasure import Certificate
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from inngest_outbox.outbox.audit import Deed
from inngest_outbox.outbox.clock import wall_now_ms
from inngest_outbox.outbox.event import Event
from inngest_outbox.outbox.figures import MINUTE_MS, Sample
from inngest_outbox.outbox.model import Dead, Filter, Retry, Settlement
from inngest_outbox.outbox.schema import migrate
from tests.support.operator_pages import deliverable, served
from tests.support.outbox_command import outbox, outbox_command, outbox_json
from tests.support.storage import (
    Outbox,
    PostgresStorage,
    SqliteStorage,
    ask,
    claim,
    deliver,
    event,
    eventually,
)

CANARY = "Canary-3141592653"
OWNER, OTHER = f"dev {CANARY}", "dev u-2"
OUT_OF_REACH = ["backups", "events that Inngest has taken", "logs", "copies of the database"]


def of_owner(owner: str) -> Event:
    payload = json.dumps({"id": "x", "name": "n", "data": {"who": owner}}).encode()
    user_id = owner.partition(" ")[2]
    return msgspec.structs.replace(event(user_id), owner=owner, user_id=user_id, payload=payload)


async def fill(outbox: Outbox) -> None:
    """Events of both owners in each settled state, one that waits, settings, and audit rows."""
    for owner in (OWNER, OTHER):
        for _ in range(3):
            await outbox.intake.append(of_owner(owner))
        batch = await claim(outbox, ask(3))
        first, second, third = (entry.seq for entry in batch.entries)
        dead = Dead(second, 1, "rejected", f"the data of {owner} is wrong")
        retry = Retry(third, 0, 1, isolated=False, note=f"refused {owner}")
        settled = Settlement(batch.claim, delivered=[first], dead=[dead], retry=[retry])
        await outbox.queue.settle(settled)
        await deliver(outbox, await claim(outbox, ask(1)))
        await outbox.scopes.save_scope("user", owner, {"said": owner})
        deed = Deed("ada", "sign-out", owner)
        await outbox.scopes.save_audited("session", {"hash": {}}, deed)
    for owner in (OWNER, OTHER):
        await outbox.intake.append(of_owner(owner))
    said = f"400 the data of {OWNER} is wrong"
    await outbox.samples.add(Sample(wall_now_ms() // MINUTE_MS * MINUTE_MS, 1, 1, 0, 0, "x", said))


def bytes_of(folder: Path) -> bytes:
    return b"".join(one.read_bytes() for one in folder.glob("outbox.db*"))


async def test_nothing_of_an_owner_is_left_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outbox.db"
    others = ("https://id.example", "next-auth", "authjs", "database")
    async with SqliteStorage(path).open() as outbox:
        await fill(outbox)
    assert CANARY.encode() in bytes_of(tmp_path)
    erase = ("erase", "--user", CANARY, "--actor", "Grace", "--json")
    code, out, _ = await outbox_command(path, *erase)
    events = {"dead": 1, "delivered": 2, "pending": 1}
    assert (code, json.loads(out)) == (0, {"action": "erase", "done": False, "events": events})
    _, out, _ = await outbox_command(path, *erase, "--issuer", "https://id.example")
    assert json.loads(out)["events"] == {}
    assert CANARY.encode() in bytes_of(tmp_path)
    code, out, _ = await outbox_command(path, *erase, "--yes")
    assert code == 0
    said = json.loads(out)
    assert said.pop("at") > 0
    counts = {"events": events, "settings": 1, "auditRows": 2, "left": 0}
    assert said == {"by": "Grace", **counts, "outOfReach": OUT_OF_REACH}
    assert CANARY.encode() not in bytes_of(tmp_path)
    async with SqliteStorage(path).open() as outbox:
        assert len(await outbox.inspector.rows(Filter())) == 4
        assert await outbox.scopes.load_scope("user", OTHER) == {"said": OTHER}
        acts = {record.action: record.detail for record in await outbox.inspector.audit(10)}
        assert acts["erase"] == "everything of one owner"
        await outbox.intake.append(of_owner("key Cron"))
        for issuer in (*others, "shared"):
            await outbox.intake.append(of_owner(f"{issuer} u-2"))
    monkeypatch.setenv("JWT_ISSUER", f" {others[0]}/ ")
    same = [f"The same id of {one} has events too: give --issuer {one}.\n" for one in others]
    five = "5 events (1 dead, 2 delivered, 2 pending)"
    would = f"Would erase {five}. Nothing was changed: give --yes to do it.\n"
    erase = ("erase", "--user", "u-2")
    assert await outbox_command(path, *erase) == (0, would, "".join(same))
    erased = (
        f"Erased {five}, 1 stored setting, the sessions, and the name in 2 rows of the audit.\n"
        f"Out of reach: {', '.join(OUT_OF_REACH)}.\n"
    )
    assert await outbox_command(path, *erase, "--yes") == (0, erased, "".join(same))
    assert (await outbox_command(path, *erase, "--issuer", others[0]))[2] == ""
    monkeypatch.setenv("OIDC_ISSUER", others[0])
    assert (await outbox_command(path, *erase, "--json"))[2] == "".join(same[1:])
    _, out, _ = await outbox_command(path, "erase", "--owner", "Cron", "--json")
    assert json.loads(out)["events"] == {"pending": 1}


async def test_a_certificate_says_where_postgresql_keeps_bytes_for_a_time(
    postgres_url: str,
) -> None:
    async with PostgresStorage(postgres_url).open() as outbox:
        await fill(outbox)
    code, out, _ = await outbox_command(postgres_url, "erase", "--user", CANARY, "--yes", "--json")
    said = json.loads(out)
    assert (code, said["events"]["dead"]) == (0, 1)
    assert said["outOfReach"] == [
        *OUT_OF_REACH,
        "pages of the database's tables until their next vacuum",
        "the database's write-ahead log and replicas until these drop it",
    ]


async def test_an_erasure_that_left_events_exits_with_1(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inngest_outbox.console.commands.owners._PATIENCE_SECONDS", 0.0)
    async with PostgresStorage(postgres_url).open() as store:
        for _ in range(2):
            await store.intake.append(of_owner(OWNER))
        await claim(store, ask(1))
        erase = ("erase", "--user", CANARY, "--yes", "--json")
        code, out, _ = await outbox_command(postgres_url, *erase)
        again, told, err = await outbox_command(postgres_url, *erase[:-1])
    assert (again, err) == (1, "1 event left, under way or new; repeat the command.\n")
    assert f"\nOut of reach: {', '.join(OUT_OF_REACH)}, pages of " in told
    said = json.loads(out)
    assert (code, said["events"], said["left"]) == (1, {"pending": 1}, 1)


async def test_one_owner_is_named(tmp_path: Path) -> None:
    both = ("--user", "u-1", "--owner", "cron")
    for given in ((), ("--user", ""), ("--owner", ""), both):
        code, _, err = await outbox_command(tmp_path / "outbox.db", "erase", *given)
        assert (code, "--user or --owner" in err) == (2, True), given


async def test_what_waits_is_delivered_first_where_that_is_asked(
    tmp_path: Path, inngest_api: FakeInngest
) -> None:
    path = tmp_path / "outbox.db"
    storage = SqliteStorage(path)
    waiting = deliverable(CANARY)
    async with storage.open() as store:
        await store.intake.append(waiting)
        await store.repairs.set_paused(paused=True, actor="ada")
    async with served(storage, inngest_api):
        erase = ("erase", "--user", CANARY, "--after-delivery", "--yes")
        erasing = asyncio.create_task(outbox(f"sqlite:///{path}", *erase))
        await acted(path, "sign-out")
        assert inngest_api.ledger.times(waiting.id) == 0
        await outbox_command(path, "resume")
        done = await erasing
    assert done["events"] == {"delivered": 1}
    assert inngest_api.ledger.times(waiting.id) == 1
    assert CANARY.encode() not in bytes_of(tmp_path)


async def acted(path: Path, action: str) -> None:
    """Wait until the audit has an act of this kind."""

    async def found() -> bool:
        acts = await outbox_json(path, "audit")
        return any(one["action"] == action for one in acts)

    await eventually(found)


async def test_an_erasure_waits_longer_for_what_is_to_be_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    async def erased(*_: object, patience_seconds: float, **__: object) -> Certificate:
        seen.append(patience_seconds)
        return Certificate(at=1, by="ada", events={}, settings=0, audit_rows=0, left=0)

    monkeypatch.setattr(owners, "erase", erased)
    migrate(f"sqlite:///{tmp_path / 'outbox.db'}")
    for options in ((), ("--after-delivery",)):
        erase = ("erase", "--user", "u-1", *options)
        for told, said in (((), "Would erase 0 events. "), (("--yes",), "Erased 0 events, ")):
            _, out, _ = await outbox_command(tmp_path / "outbox.db", *erase, *told)
            assert out.startswith(said)
    assert seen == [30.0, 300.0]
