from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from inngest_outbox.outbox.model import DeliveryRecord
from inngest_outbox.outbox.schema import known_ids, migrate
from inngest_outbox.outbox.sqlite.inspector import SqliteInspector
from inngest_outbox.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.outbox_command import one_of_each, outbox_command, outbox_json
from tests.support.storage import append_all, event


async def test_stats_says_who_holds_how_much(
    live: SqliteOutbox, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await outbox_json(path, "stats", "--owners"))["owners"] == []
    events = await append_all(live, 2, "u-1") + await append_all(live, 1, "u-2")
    sizes = [len(one.payload) for one in events]
    _, out, _ = await outbox_command(path, "stats", "--owners", "--json")
    assert json.loads(out)["owners"] == [
        {"owner": "u-1", "rows": 2, "bytes": sum(sizes[:2])},
        {"owner": "u-2", "rows": 1, "bytes": sizes[2]},
    ]
    for number in range(9):
        await append_all(live, 1, f"o-{number}")
    _, out, _ = await outbox_command(path, "stats", "--owners", "--json")
    assert len(json.loads(out)["owners"]) == 10
    monkeypatch.setattr(SqliteInspector, "owners", None)  # it reads every row
    assert "owners" not in await outbox_json(path, "stats")


async def test_list_shows_what_matches_newest_first(live: SqliteOutbox, path: Path) -> None:
    ids = await one_of_each(live)
    _, out, _ = await outbox_command(path, "list", "--json")
    assert out.startswith('[\n  {\n    "id": "')  # a line for each field, for people too
    for options, states in (
        *((f"--state {state}", [state]) for state in ids),
        ("", ids),
        ("--name documents/aws.index", ids),
        ("--name another", []),
        ("--user u-1", ["dead", "pending", "delivered"]),
        ("--user u-2 --limit 5", ["delivering"]),
        ("--user u-1 --state pending", ["pending"]),
        ("--user u-2 --state pending", []),
        ("--reason rejected", ["dead"]),
        ("--reason rejected --state pending", []),
        ("--until 1h", []),
        ("--since 1h", ids),
    ):
        rows = await outbox_json(path, "list", *options.split())
        expected = sorted((ids[state] for state in states), reverse=True)
        assert [row["id"] for row in rows] == expected, options


async def test_show_tells_why_and_keeps_the_payload_to_itself(
    live: SqliteOutbox, path: Path
) -> None:
    ids = await one_of_each(live)
    code, out, _ = await outbox_command(path, "show", ids["dead"], "--json")
    row = json.loads(out)
    assert code == 0
    assert (row["state"], row["reason"], row["attempts"]) == ("dead", "rejected", 3)
    assert "the name is missing" in row["explanation"]
    assert "payload" not in row
    _, out, _ = await outbox_command(path, "show", ids["pending"])
    assert "refused: no" in out
    assert "pad" not in out
    for damaged in ("[", '[{"at":"1","note":"a"}]', '[{"at":1}]', '{"at":1,"note":"a"}'):
        change = f"UPDATE outbox_ready SET history = '{damaged}'"
        await live.writer.between_commits(lambda c, change=change: c.execute(change))
        _, out, _ = await outbox_command(path, "show", ids["pending"])
        assert out.endswith(
            "history        1970-01-01 00:00:00 UTC  The history can't be read.\n"
        ), out
    _, out, _ = await outbox_command(path, "show", ids["dead"], "--payload", "--json")
    assert json.loads(out)["payload"]["id"] == ids["dead"]
    _, out, _ = await outbox_command(path, "show", ids["dead"], "--payload")
    _, brace, payload = out.partition("{\n")
    assert json.loads(brace + payload)["id"] == ids["dead"]
    for damaged, words in ((b"[" * 9_000, "[" * 9_000), (b'{"a":\x1b\xff', '{"a":\\u001b\ufffd')):
        given = "UPDATE outbox SET payload = ?", (damaged,)
        await live.writer.between_commits(lambda c, given=given: c.execute(*given))
        assert (await outbox_command(path, "show", ids["dead"], "--payload"))[1].endswith(
            f"\n{words}\n"
        )
        told = await outbox_json(path, "show", ids["dead"], "--payload")
        assert told["payload"] == damaged.decode(errors="replace")


async def test_an_inngest_that_is_fake_is_called_so(live: SqliteOutbox, path: Path) -> None:
    await live.delivery.save(DeliveryRecord("recovering", "HTTP 503", 1, 0, 0.0, 0, rate=0.5))
    _, out, _ = await outbox_command(path, "stats")
    assert "\ndelivery         recovering (HTTP 503)\n" in out
    assert "\ndrained in       0 s\n" in out
    [one] = await append_all(live, 1)
    for destination, is_fake in (("cloud", False), ("fake", True)):
        record = DeliveryRecord("healthy", "", 1, 0, 0.0, 0, rate=0.5, destination=destination)
        await live.delivery.save(record)
        for command in (["stats"], ["show", one.id]):
            _, out, _ = await outbox_command(path, *command)
            assert ("a fake Inngest" in out) is is_fake, command
            assert "REASON" not in out  # of no dead rows
            figures = (
                "confirmation     unknown\nrate             0.5 events/s\ndrained in       2 s\n"
            )
            assert (figures in out) is (command == ["stats"])


async def test_an_id_without_an_event_is_said(live: SqliteOutbox, path: Path) -> None:
    await append_all(live, 2)
    for options in ((), ("--payload",)):
        told = "outbox: there is no event no\ufffdthing in this outbox.\n"
        assert await outbox_command(path, "show", "no\x1bthing", *options) == (1, "", told)
        told = "outbox: give an event's id, or how it begins.\n"
        assert await outbox_command(path, "show", "", *options) == (2, "", told)


async def test_an_argument_that_is_no_text_is_said(path: Path) -> None:
    migrate(f"sqlite:///{path}")
    no_text = (2, "", "outbox: An argument is no text in UTF-8.\n")
    given = ("show", "replay", "list --user", "audit", "sign-out", "pause --reason")
    for command in (*given, "explain --json"):
        assert await outbox_command(path, *command.split(), "a\udcff") == no_text, command


async def test_a_number_beyond_what_a_store_counts_is_refused_in_words(path: Path) -> None:
    migrate(f"sqlite:///{path}")
    for command, of_whole, beyond in (
        ("list --since", "36500d", "36501d"),
        ("purge --older-than", "36500d", f"{'9' * 400}d"),
        ("list --limit", "1000000000", "1000000001"),
        ("list --limit", "1", "0"),
        ("list --cursor", f"{10**18}", f"{10**19}"),
        ("list --cursor", "1", "0"),
        ("audit --limit", "1000000000", f"{10**19}"),
        ("replay --all --limit", "1000000000", f"{10**19}"),
        ("replay --all --rate", "30000", "30001"),
        ("tail --lines", None, f"{10**19}"),
        ("tail -n", None, "-1"),
    ):
        code, _, err = await outbox_command(path, *command.split(), beyond)
        assert (code, "Invalid value for" in err) == (2, True), command
        if of_whole:
            assert (await outbox_command(path, *command.split(), of_whole))[0] == 0, command


async def test_a_sign_out_of_a_user_without_events_says_so(path: Path) -> None:
    migrate(f"sqlite:///{path}")
    code, out, err = await outbox_command(path, "sign-out", "no\x1bbody")
    assert (code, out) == (0, "Ended the sessions of no\ufffdbody (dev, shared).\n")
    assert err == "outbox: there is no event of no\ufffdbody; check the id.\n"
    code, out, err = await outbox_command(path, "sign-out", "")
    assert (code, out, "give a user's id" in err) == (2, "", True)
    _, out, _ = await outbox_command(path, "sign-out", "ada", "--issuer", "a\x1b")
    assert out == "Ended the sessions of ada (a\ufffd).\n"


async def test_looking_leaves_no_file_beside_an_outbox_at_rest(path: Path) -> None:
    async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9) as outbox:
        await outbox.intake.append(event())
    before = sorted(one.name for one in path.parent.iterdir())
    code, out, _ = await outbox_command(path, "stats", "--json")
    assert code == 0
    assert json.loads(out)["pending"] == 1
    assert json.loads(out)["serving"] is False
    assert sorted(one.name for one in path.parent.iterdir()) == before


async def test_a_copy_with_its_log_is_read_whole(live: SqliteOutbox, path: Path) -> None:
    await append_all(live, 3)
    folder = path.parent / "copy"
    folder.mkdir()
    for name in (path.name, f"{path.name}-wal"):
        shutil.copy(path.with_name(name), folder / name)
    _, out, _ = await outbox_command(folder / path.name, "stats", "--json")
    assert json.loads(out)["pending"] == 3


async def test_each_wrong_address_gets_its_own_sentence(tmp_path: Path) -> None:
    for wrong in ("mysql://x", "sqlite://x", "sqlite:///"):
        assert (await outbox_command(wrong, "stats"))[2] == (
            "outbox: The outbox's address is sqlite:///path/to/file or "
            "postgresql://host/database (OUTBOX_URL or --url).\n"
        )
    for none in (tmp_path / "none.db", tmp_path):
        assert "no outbox file" in (await outbox_command(none, "stats"))[2]
    text = tmp_path / "text.db"
    text.write_text("this is not a database, not at all, whatever its name says" * 20)
    assert "not an SQLite database" in (await outbox_command(text, "stats"))[2]
    other = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE t (x)")
    told = "outbox: The file is an SQLite database, but not an outbox.\n"
    assert await outbox_command(other, "stats") == (2, "", told)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_without_permission_is_said(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    path.touch(mode=0)
    assert "permission" in (await outbox_command(path, "stats"))[2]


async def test_an_outbox_of_another_version_is_said(path: Path) -> None:
    """But for the one that has applied the next migration: its outbox is shown."""
    migrate(f"sqlite:///{path}")
    later = int(known_ids()[-1][:4]) + 1
    for change, expected, words in (
        (f"INSERT INTO outbox_migrations VALUES ('{later:04}_next', 0)", 0, ""),
        ("INSERT INTO outbox_migrations VALUES ('9999_later', 0)", 2, "newer version"),
        ("DELETE FROM outbox_migrations", 2, "schema is older than this program"),
    ):
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(change)
        code, _, err = await outbox_command(path, "stats")
        assert (code, words in err) == (expected, True), err


async def test_a_pipe_gets_no_spaces_that_fill_up_a_line(live: SqliteOutbox, path: Path) -> None:
    ids = await one_of_each(live)
    await live.intake.append(event("u " * 200, name="n " * 120))
    for command in (["stats"], ["list"], ["show", ids["dead"]], ["stats", "--owners"]):
        await outbox_command(path, *command)
    assert (await outbox_command(path, "list"))[1].count("\n") == 6  # a line for each
