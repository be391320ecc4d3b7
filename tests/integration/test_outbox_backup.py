from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

from bench.fill import fill
from service.outbox.model import State
from service.outbox.sqlite.store import SqliteOutbox, open_sqlite_outbox
from tests.support.outbox_command import one_of_each, outbox_command, outbox_json
from tests.support.storage import append_all, claim, event, ids


async def test_a_backup_of_a_live_outbox_holds_every_row(live: SqliteOutbox, path: Path) -> None:
    written = await one_of_each(live)
    copy = path.with_name("copy.db")
    answer = await outbox_json(path, "backup", str(copy))
    assert answer["bytes"] > 0
    rows = {row["id"]: row["state"] for row in await outbox_json(copy, "list")}
    assert rows == {event_id: state for state, event_id in written.items()}
    assert stat.S_IMODE(os.stat(copy).st_mode) == 0o600  # noqa: PTH116
    names = {one.name for one in path.parent.iterdir()}
    assert {name for name in names if name.startswith("copy")} == {"copy.db"}


async def test_a_restored_copy_delivers_what_it_holds(live: SqliteOutbox, path: Path) -> None:
    written = await one_of_each(live)
    copy = path.with_name("restored.db")
    await outbox_json(path, "backup", str(copy))
    async with open_sqlite_outbox(copy, max_pending=99, max_pending_per_user=99) as restored:
        # What was being sent is due at once, and known to have left; so is the one that waited.
        assert restored.recovery.claimed == 1
        found = {*ids(await claim(restored)), *ids(await claim(restored))}
        assert found == {written["delivering"], written["pending"]}
        row = await restored.intake.find(written["delivering"])
        assert row is not None
        assert row.first_sent_at_ms is not None
        await restored.intake.append(event())
        dead = await restored.intake.find(written["dead"])
        assert dead is not None
        assert dead.state is State.DEAD


async def test_a_backup_works_without_a_service(path: Path) -> None:
    async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9) as outbox:
        await append_all(outbox, 2)
    copy = path.with_name("copy.db")
    code, out, _ = await outbox_command(path, "backup", str(copy))
    assert code == 0
    assert out == f"Copied {copy.stat().st_size:,} bytes to {copy}.\n"
    other = path.with_name("other.db")
    told = await outbox_json(path, "backup", str(other))
    assert told == {"file": str(other), "bytes": other.stat().st_size}
    assert (await outbox_json(copy, "stats"))["pending"] == 2


async def test_a_backup_replaces_nothing_and_says_what_is_wrong(
    live: SqliteOutbox, path: Path
) -> None:
    there = path.with_name("there.db")
    there.write_text("precious")
    code, _, err = await outbox_command(path, "backup", str(there))
    assert code == 2
    assert "exists already" in err
    assert there.read_text() == "precious"
    assert (await outbox_command(path, "backup", str(path.parent / "no" / "folder.db")))[0] == 2
    code, _, err = await outbox_command("postgresql://h/d", "backup", str(path.with_name("x")))
    assert code == 2
    assert "pg_dump" in err


def test_a_backup_that_is_killed_leaves_no_payload(tmp_path: Path) -> None:
    path, folder = tmp_path / "outbox.db", tmp_path / "backups"
    folder.mkdir()
    fill(path, 30_000)
    code = (
        "import os, signal, sys; from pathlib import Path; "
        "from service.outbox.sqlite.file.backup import back_up; "
        "back_up(Path(sys.argv[1]), Path(sys.argv[2]), lambda done, total: "
        "done and os.kill(os.getpid(), signal.SIGKILL))"
    )
    command = [sys.executable, "-c", code, str(path), str(folder / "copy.db")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert [one.name for one in folder.iterdir() if one.stat().st_size] == []
