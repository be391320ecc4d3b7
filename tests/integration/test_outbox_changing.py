from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import os
import platform
import signal
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from inngest_outbox.bootstrap.stores import Outbox, open_served_outbox
from inngest_outbox.config.settings import Settings
from inngest_outbox.console.commands import repairs
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.model import ClaimRequest, Named, Settlement, State
from inngest_outbox.outbox.sqlite.file.lock import writer_of
from inngest_outbox.outbox.sqlite.repairs import SqliteRepairs
from inngest_outbox.outbox.sqlite.store import open_sqlite_outbox
from tests.support.outbox_command import (
    SCRIPT,
    one_of_each,
    outbox_command,
    outbox_json,
    outbox_process,
)
from tests.support.remote_storage import status_of
from tests.support.rows import bury_all
from tests.support.storage import append_all, claim, event, eventually

DAY_MS = 86_400_000


@pytest.fixture
async def served(path: Path) -> AsyncIterator[Outbox]:
    """An outbox held by a process that takes commands, as `serve` does."""
    settings = Settings.load({"OUTBOX_URL": f"sqlite:///{path}"})
    async with open_served_outbox(settings, NullRecorder(), status=status_of) as outbox:
        yield outbox


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """What the service logs; it shares this process with the commands."""
    with structlog.testing.capture_logs() as lines:
        yield lines


async def states(path: Path) -> dict[str, str]:
    return {row["id"]: row["state"] for row in await outbox_json(path, "list", "--limit", "2000")}


async def test_an_outbox_without_a_journal_says_so(path: Path) -> None:
    code, _, err = await outbox_command(path, "journal")
    assert (code, "OUTBOX_JOURNAL names no journal" in err) == (2, True)


async def test_nothing_changes_without_rows_or_yes(served: Outbox, path: Path) -> None:
    ids = await one_of_each(served)
    before = await states(path)
    for command in ("replay", "discard"):
        code, out, err = await outbox_command(path, command, "--yes")
        assert (code, out, "choose rows" in err) == (2, "", True)
        code, _, err = await outbox_command(path, command, ids["dead"], "", "--all", "--yes")
        assert (code, err) == (2, "outbox: an id is empty. Nothing was changed.\n")
    for command in (
        ("replay", "--all"),
        ("replay", ids["dead"], "--rate", "60"),
        ("discard", ids["pending"]),
        ("discard", "--state", "dead"),
        ("purge", "--older-than", "0s"),
    ):
        code, out, _ = await outbox_command(path, *command)
        assert code == 0
        assert "Nothing was changed" in out
        assert (await outbox_json(path, *command))["done"] is False
    assert await states(path) == before
    assert await outbox_json(path, "audit") == []


async def test_replay_makes_dead_rows_pending_under_their_ids(served: Outbox, path: Path) -> None:
    ids = await one_of_each(served)
    answer = await outbox_json(path, "replay", ids["dead"], "--yes", "--actor", "Ada")
    assert answer == {"action": "replay", "done": True, "ids": [ids["dead"]]}
    row = await served.intake.find(ids["dead"])
    assert row is not None
    assert (row.state, row.attempts) == (State.PENDING, 0)
    batch = await claim(served, ClaimRequest(10, 1000, 30.0))
    assert [entry.event_id for entry in batch.entries] == [ids["dead"]]
    [audit] = await outbox_json(path, "audit")
    assert (len(audit.pop("act")), audit.pop("at") > row.accepted_at_ms) == (32, True)
    how = {"actor": "Ada", "action": "replay", "detail": "1 given id, state=dead"}
    assert audit == {**how, "ids": [ids["dead"]]}


async def test_replay_by_filter_takes_what_matches(served: Outbox, path: Path) -> None:
    mine, theirs = event("u-1"), event("u-2")
    mine = msgspec.structs.replace(mine, accepted_at_ms=mine.accepted_at_ms - 3 * DAY_MS)
    await bury_all(served, mine, theirs)
    _, out, err = await outbox_command(path, "replay", "--user", "u-1")
    _, row, *said = out.splitlines()
    cells = f"{mine.id} dead 4 3 d u-1 documents/aws.index rejected: rejected: words"
    assert " ".join(row.split()) == cells
    would = "Would replay 1 row. Nothing was changed: give --yes to do it."
    assert (said, err) == ([would], "")
    assert (await outbox_json(path, "replay", "--user", "u-2", "--yes"))["ids"] == [theirs.id]
    assert (await served.inspector.stats()).dead == 1
    code, out, _ = await outbox_command(path, "replay", "--reason", "too_large", "--yes")
    assert (code, out) == (0, "Replayed 0 rows.\n")
    assert len(await outbox_json(path, "audit")) == 1  # nothing was changed by it
    _, out, _ = await outbox_command(path, "discard", "--user", "u-2")  # its event waits
    assert out == "No rows match; there is nothing to do.\n"
    waiting = ("discard", "--user", "u-2", "--state", "pending")
    assert (await outbox_json(path, *waiting))["ids"] == [theirs.id]


async def test_a_replay_at_a_rate_is_one_act_in_small_pages(served: Outbox, path: Path) -> None:
    ids = await bury_all(served, event(), event(), event())
    for rate in ("0", "30001"):
        code, _, err = await outbox_command(path, "replay", "--all", "--rate", rate)
        assert (code, "--rate" in err) == (2, True)
    done = await outbox_json(path, "replay", "--all", "--rate", "60", "--yes")
    assert sorted(done["ids"]) == sorted(ids)
    [act] = await outbox_json(path, "audit")
    assert sorted(act["ids"]) == sorted(ids)


async def test_ctrl_c_ends_a_replay_at_a_rate_and_leaves_the_rest_dead(
    served: Outbox, path: Path
) -> None:
    await bury_all(served, event(), event(), event())
    command = ("replay", "--all", "--rate", "1", "--yes", "--url", f"sqlite:///{path}")
    process = await asyncio.create_subprocess_exec(*SCRIPT, *command)

    async def dead() -> int:
        return (await served.inspector.stats()).dead

    await eventually(dead, lambda count: count < 3)
    process.send_signal(signal.SIGINT)
    assert await process.wait() != 0
    assert await dead() == 2


@pytest.mark.parametrize("form", [(), ("--json",)])
async def test_a_row_that_was_changed_meanwhile_is_told(
    served: Outbox, path: Path, monkeypatch: pytest.MonkeyPatch, form: tuple[str, ...]
) -> None:
    ids = await bury_all(served, event(), event(), event())
    replay = SqliteRepairs.replay

    async def late(repairs: SqliteRepairs, wanted: Named, **how: Any) -> list[str]:
        await repairs.discard(Named(tuple(ids[:1]), State.DEAD), actor="another")
        return await replay(repairs, wanted, **how)

    monkeypatch.setattr(SqliteRepairs, "replay", late)
    code, out, _ = await outbox_command(path, "replay", "--all", "--yes", *form)
    if form:
        assert sorted(json.loads(out)["ids"]) == sorted(ids[1:])
        return
    assert (code, out) == (0, "Replayed 2 rows. 1 row had changed meanwhile: left alone.\n")


async def test_replay_says_what_may_run_a_second_time(path: Path) -> None:
    async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9) as outbox:
        await bury_all(outbox, event(), event())
        earlier = f"UPDATE outbox_done SET first_sent_at_ms = first_sent_at_ms - {2 * DAY_MS}"
        await outbox.writer.between_commits(lambda c: c.execute(f"{earlier} WHERE seq = 1"))
    forgotten = "Inngest has forgotten their ids: events that it took then run a second time."
    for told in ((), ("--yes",)):
        _, _, err = await outbox_command(path, "replay", "--all", *told)
        assert err == f"1 of them may first have been sent more than 24 h ago. {forgotten}\n"


async def test_an_id_that_is_not_dead_is_refused_whole(served: Outbox, path: Path) -> None:
    ids = await one_of_each(served)
    living = ids["delivered"], ids["pending"]
    code, out, err = await outbox_command(
        path, "replay", ids["dead"], *living, "nothing", "none", "--yes"
    )
    assert (code, out) == (1, "")
    why = [f"{one}: there is no such event" for one in ("nothing", "none")]
    why += [f"{ids[state]}: it is {state}" for state in ("delivered", "pending")]
    assert err == "".join(f"outbox: {one}. Nothing was changed.\n" for one in why)
    code, _, err = await outbox_command(path, "discard", ids["pending"], "--state", "dead", "--yes")
    assert (code, f"{ids['pending']}: it is pending" in err) == (1, True)
    assert (await served.inspector.stats()).dead == 1


async def test_discard_removes_undelivered_rows_only_when_told(served: Outbox, path: Path) -> None:
    ids = await one_of_each(served)
    for one, lost in ((ids["pending"], 2), ("--all", 1)):
        _, _, err = await outbox_command(path, "discard", ids["dead"], ids["delivered"], one)
        assert err == f"{lost} of them may not have reached Inngest, and never will.\n"
    await append_all(served, 1, "u-3")
    batch = await claim(served)
    await served.queue.settle(Settlement(batch.claim, sent=[batch.entries[0].seq]))
    every = [*ids.values(), batch.entries[0].event_id]  # of them one is delivering, one delivered
    _, _, err = await outbox_command(path, "discard", *every)
    assert err == "3 of them may not have reached Inngest, and never will.\n"
    await outbox_json(path, "discard", "--state", "sent", "--yes")
    assert (await outbox_command(path, "discard", ids["pending"], "--json"))[2] == ""
    _, out, _ = await outbox_command(path, "discard", "--all")
    assert "Would discard 1 row" in out
    answer = await outbox_json(path, "discard", ids["pending"], ids["dead"], "--yes")
    assert sorted(answer["ids"]) == sorted([ids["pending"], ids["dead"]])
    assert sorted((await states(path)).values()) == ["delivered", "delivering"]
    # Under a claim it stays, whoever asks.
    nothing = (0, "No rows match; there is nothing to do.\n", "")
    assert await outbox_command(path, "discard", ids["delivering"]) == nothing
    for told in ((), ("--yes",)):
        answer = await outbox_json(path, "discard", ids["delivering"], *told)
        assert answer == {"action": "discard", "done": bool(told), "ids": []}
    _, out, _ = await outbox_command(path, "discard", ids["delivered"], "--yes")
    assert out == "Discarded 1 row.\n"
    assert (await served.inspector.stats()).delivering == 1


async def test_purge_removes_delivered_rows_only(
    served: Outbox, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await one_of_each(served)
    _, out, _ = await outbox_command(path, "purge", "--older-than", "1h")
    assert "remove 0 rows" in out
    none = {"action": "purge", "done": True, "rows": 0, "hasMore": False}
    assert await outbox_json(path, "purge", "--yes") == none  # of 7 days ago
    now = ("purge", "--older-than", "0s")
    for most, rows, said in ((0, 0, "more than 0 rows"), (1, 1, "1 row")):
        monkeypatch.setattr(repairs, "_COUNTED", most)
        dry = {**none, "done": False, "rows": rows, "hasMore": not most}
        assert await outbox_json(path, *now) == dry
        assert f"Would remove {said} " in (await outbox_command(path, *now))[1]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        day = "settled_at_ms = settled_at_ms - 86400000, ran_ms = ran_ms - 86400000"
        file.execute(f"UPDATE outbox_done SET {day}")
    now = ("purge", "--older-than", "1h")
    assert await outbox_json(path, *now, "--yes", "--actor", "kim") == {**none, "rows": 1}
    assert "  kim  purge  delivered rows: 1\n" in (await outbox_command(path, "audit"))[1]
    await outbox_command(path, "pause", "--actor", "")  # who is told to be nobody
    actors = [one["actor"] for one in await outbox_json(path, "audit")]
    assert actors == [f"{getpass.getuser()}@{platform.node()}", "kim"]
    nameless = f"uid {os.getuid()}@{platform.node()}"
    for number, nobody in enumerate((lambda: {}["no name"], (path.parent / "no name").stat), 1):
        monkeypatch.setattr(getpass, "getuser", nobody)
        _, out, _ = await outbox_command(path, "purge", "--yes")
        assert out == "Removed 0 delivered rows.\n"
        await outbox_command(path, "pause")
        actors = [one["actor"] for one in await outbox_json(path, "audit")]
        assert actors.count(nameless) == number
    assert sorted((await states(path)).values()) == ["dead", "delivering", "pending"]


async def test_pause_and_resume_reach_the_audit_and_the_log(
    served: Outbox, path: Path, logged: list[MutableMapping[str, Any]]
) -> None:
    await outbox_json(path, "pause", "--actor", "ada")
    assert (await outbox_json(path, "resume", "--yes", "--actor", "kim"))["paused"] is False
    assert (await outbox_json(path, "stats"))["delivery"]["state"] == "healthy"
    assert [one["action"] for one in await outbox_json(path, "audit")] == ["resume", "pause"]
    actions = [line for line in logged if "action" in line]
    assert [(line["action"], line["log_level"], line["actor"]) for line in actions] == [
        ("pause", "warning", "ada"),
        ("resume", "warning", "kim"),
    ]


async def test_without_a_service_a_command_takes_its_place(path: Path) -> None:
    async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9) as store:
        await bury_all(store, event())
    assert (await outbox_json(path, "replay", "--all", "--yes"))["done"] is True
    await outbox_json(path, "pause")
    copy = ("backup", f"{path}\udcff", "--url", f"sqlite:///{path}")
    code, said = await outbox_process(*copy)
    assert (code, said.endswith(f" bytes to {path}?.\n")) == (0, True)
    stats = await outbox_json(path, "stats")
    assert (stats["pending"], stats["dead"], stats["delivery"]["state"]) == (1, 0, "paused")
    assert writer_of(path) is None


async def test_a_command_makes_no_outbox_where_there_is_none(path: Path) -> None:
    looking = ("stats", "list", "show 0", "explain a/b", "audit", "tail", "purge")
    changing = ("replay --all", "discard --all", "erase --user u-1", "sign-out u-1", "purge --yes")
    rest = ("pause", "resume", "backup new.db", "recover new.db")
    for command in (*looking, *changing, *rest):
        code, out, err = await outbox_command(path, *command.split())
        assert (code, out, err.count("\n")) == (2, "", 1), command
        assert err.startswith(f"outbox: There is no outbox file {path} "), command
        assert list(path.parent.iterdir()) == []


async def test_only_this_user_reaches_the_socket_and_it_goes_with_the_service(path: Path) -> None:
    settings = Settings.load({"OUTBOX_URL": f"sqlite:///{path}"})
    async with open_served_outbox(settings, NullRecorder(), status=status_of):
        socket = Path(str((writer_of(path) or {})["socket"]))
        modes = [stat.S_IMODE(os.stat(one).st_mode) for one in (socket, socket.parent)]  # noqa: PTH116
        assert modes == [0o600, 0o700]
    assert not os.path.exists(socket.parent)  # noqa: ASYNC240, PTH110


async def test_a_holder_that_takes_no_commands_is_said(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOX_JOURNAL", "s3://bucket/prefix")
    async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9):
        for command in ("pause", "journal"):
            code, _, err = await outbox_command(path, command)
            assert code == 2
            assert f"A process (pid {os.getpid()}) holds {path} and takes no commands." in err
    gone = str(path.parent / "gone")
    async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9, socket=gone):
        code, _, err = await outbox_command(path, "resume")
        assert (await outbox_command(path, "stats"))[0] == 0
        assert (await outbox_command(path, "check"))[0] == 3
    assert code == 2
    assert "does not answer" in err


async def test_the_audit_names_the_filter_and_every_event(served: Outbox, path: Path) -> None:
    await asyncio.gather(*(served.intake.append(event(f"u-{n}")) for n in range(1100)))
    assert len(await outbox_json(path, "list")) == 20
    _, out, _ = await outbox_command(path, "discard", "--state", "pending")
    assert "Would discard 1,100 rows (20 of 1,100 are shown). Nothing was changed" in out
    assert out.count("pending") == 20
    assert "\npending          1,100\n" in (await outbox_command(path, "stats"))[1]
    assert " | pending=1100 delivering=0 " in (await outbox_command(path, "check"))[1]
    discard = ("discard", "--state", "pending", "--yes", "--actor", "ada")
    lost = "1,100 of them may not have reached Inngest, and never will.\n"
    assert await outbox_command(path, *discard) == (0, "Discarded 1,100 rows.\n", lost)
    [record] = await outbox_json(path, "audit")
    assert (record["action"], record["detail"]) == ("discard", "state=pending, limit=100000")
    assert len(record["ids"]) == 1100
    _, out, _ = await outbox_command(path, "audit")
    assert "ada  discard  1,100 events  (state=pending, limit=100000)" in out
    assert "and 1,097 more" in out
    assert await outbox_json(path, "audit", record["ids"][700]) == [record]
    code, out, err = await outbox_command(path, "audit", "no-such-id")
    assert (code, out, err) == (0, "", "No operator action is recorded.\n")
