"""`outbox check` as a monitoring system runs it."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from pathlib import Path

import msgspec
import pytest

from inngest_outbox.console.commands import check
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.outbox.event import NO_META, Meta
from inngest_outbox.outbox.link.messages import Status
from inngest_outbox.outbox.link.server import serve_link
from inngest_outbox.outbox.link.socket_folder import service_socket
from inngest_outbox.outbox.model import DeliveryRecord
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.outbox_command import outbox_command, outbox_json
from tests.support.storage import event


async def append_aged(outbox: SqliteOutbox, seconds: int, meta: Meta = NO_META) -> None:
    fresh = event()
    accepted_at_ms = fresh.accepted_at_ms - seconds * 1000
    aged = msgspec.structs.replace(fresh, accepted_at_ms=accepted_at_ms, meta=meta)
    await outbox.intake.append(aged)


async def test_an_empty_outbox_is_ok(live: SqliteOutbox, path: Path) -> None:
    await live.delivery.save(DeliveryRecord("backing_off", "503", 1, 1, 5.0, 0))
    code, out, _ = await outbox_command(path, "check")
    assert code == 0
    figures = "pending=0 delivering=0 sent=0 delivered=0 dead=0 oldest_pending=0.0s rate=0.0"
    assert out == f"OUTBOX OK - nothing is late, nothing is dead | {figures}\n"
    told = await outbox_json(path, "check")
    well = {"code": 0, "status": "OK", "message": "nothing is late, nothing is dead"}
    assert {name: told[name] for name in well} == well


@pytest.mark.parametrize(
    ("age", "options", "code", "words"),
    [
        (600, (), 1, "OUTBOX WARNING - the oldest due row has waited 10 min, more than 5 min"),
        (600, ("--max-age", "20m"), 0, "OUTBOX OK - "),
        (7200, (), 2, "OUTBOX CRITICAL - the oldest due row has waited 2 h, more than 1 h"),
        (7200, ("--critical-age", "3h"), 1, "OUTBOX WARNING - "),
        (
            600,
            ("--max-age", "20m", "--critical-age", "5m"),
            2,
            "OUTBOX CRITICAL - the oldest due row has waited 10 min, more than 5 min",
        ),
    ],
)
async def test_a_late_row_is_told_by_its_age(
    live: SqliteOutbox, path: Path, *, age: int, options: tuple[str, ...], code: int, words: str
) -> None:
    await append_aged(live, age)
    found, out, _ = await outbox_command(path, "check", *options)
    assert (found, out[: len(words)]) == (code, words)
    assert re.search(rf" oldest_pending={age // 10}\d\.\ds rate=0\.0$", out)


async def test_a_delayed_row_is_not_late(live: SqliteOutbox, path: Path) -> None:
    await append_aged(live, 7200, Meta(due_at_ms=event().accepted_at_ms + 3_600_000))
    assert (await outbox_command(path, "check"))[0] == 0


async def test_a_refused_configuration_is_critical_also_while_nothing_waits(
    live: SqliteOutbox, path: Path
) -> None:
    await live.delivery.save(DeliveryRecord("misconfigured", "HTTP 401 | no", 1, 1, 5.0, 0))
    code, out, _ = await outbox_command(path, "check")
    assert (code, out.count("|"), "(HTTP 401 / no) | pending=" in out) == (2, 1, True)
    await live.intake.append(event())
    code, out, _ = await outbox_command(path, "check", "--json")
    told = json.loads(out)
    assert (code, told["code"], told["status"]) == (2, 2, "CRITICAL")
    assert told["message"] == "1 wait and delivery is misconfigured (HTTP 401 | no)"
    assert told["stats"]["pending"] == 1


@pytest.mark.parametrize("failure", ["The disk is full.", None])
async def test_a_service_that_can_not_store_is_critical(path: Path, failure: str | None) -> None:
    """And so is one that has not seen yet that its file is damaged."""
    with service_socket(str(path)) as listening:
        assert listening
        async with (
            open_sqlite_outbox(
                path, max_pending=9, max_pending_per_user=9, socket=listening.getsockname()
            ) as outbox,
            serve_link(listening, [], lambda: Status(failure)),
        ):
            await outbox.intake.append(event())
            with contextlib.closing(sqlite3.connect(path)) as file, file:
                file.execute("DELETE FROM outbox_ready")
            code, out, _ = await outbox_command(path, "check")
    cause = failure or "The outbox's file is damaged: events without a state: 1; "
    said = f"OUTBOX CRITICAL - events can't be stored: {cause}"
    assert (code, out[: len(said)]) == (2, said)


async def test_it_can_not_tell_of_an_address_without_an_outbox() -> None:
    for url in (
        "mysql://h/x",
        "postgresql://[::1/x",
        "sqlite://",
        "sqlite:///a\udcff",
        "sqlite:///no/such.db",
    ):
        code, out, _ = await outbox_command(url, "check")
        assert code == 3
        assert out.startswith("OUTBOX UNKNOWN - ")
        code, out, _ = await outbox_command(url, "check", "--json")
        told = json.loads(out)
        assert (code, told["code"], told["status"], told["stats"]) == (3, 3, "UNKNOWN", None)


AGE = "write a duration as a number with ms, s, m, h, d or w, such as 10s or 7d"
SCHEMA = "OUTBOX_SCHEMA: a schema's name has lower-case letters, digits and underscores"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("--max-age soon", f"Invalid value for '--max-age': {AGE}"),
        ("--critical-age soon", f"Invalid value for '--critical-age': {AGE}"),
        ("--nope", "No such option: --nope"),
        ("a\x1b", "Got unexpected extra argument(s) (a\\x1b)"),
        ("", f"Invalid value for '--url' (env var: 'OUTBOX_URL'): {SCHEMA}"),
    ],
)
async def test_it_can_not_tell_with_arguments_that_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch, given: str, words: str
) -> None:
    monkeypatch.setenv("OUTBOX_SCHEMA", "queue" if given else "a b")
    check = ("check", *given.split())
    told = await outbox_command("postgresql://h/x", *check)
    assert told == (3, f"OUTBOX UNKNOWN - {words}\n", "")
    code, out, err = await outbox_command("postgresql://h/x", *check, "--json")
    unknown = {"code": 3, "status": "UNKNOWN", "message": words, "stats": None}
    assert (code, json.loads(out), err) == (3, unknown, "")


async def test_it_can_not_tell_in_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for fault, words, trace in (
        (OutboxUnavailableError("It is away:\n  refused."), "It is away: refused.", []),
        (RuntimeError("n\x1b\nx"), "an unforeseen RuntimeError", ["RuntimeError: n\ufffd", "x"]),
    ):

        async def failing(_: str, fault: Exception = fault) -> None:
            raise fault

        monkeypatch.setattr(check, "_ask", failing)
        code, out, err = await outbox_command(path, "check")
        assert (code, out) == (3, f"OUTBOX UNKNOWN - {words}\n")
        assert err.splitlines()[-2:] == trace
        code, out, _ = await outbox_command(path, "check", "--json")
        unknown = {"code": 3, "status": "UNKNOWN", "message": words, "stats": None}
        assert (code, json.loads(out)) == (3, unknown)
