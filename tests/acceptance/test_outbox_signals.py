"""The `outbox` script as shells use it: pipes that close, Ctrl-C, completion, help."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from inngest_outbox.__main__ import outbox
from inngest_outbox.console.commands.main import app
from inngest_outbox.outbox.sqlite.store import open_sqlite_outbox
from tests.support.fleet import ROOT
from tests.support.outbox_command import SCRIPT
from tests.support.storage import append_all

MODULE = (sys.executable, "-m", "inngest_outbox.console.commands.main")


@pytest.fixture
async def url(tmp_path: Path) -> str:
    path = tmp_path / "outbox.db"
    async with open_sqlite_outbox(path, max_pending=9999, max_pending_per_user=9999) as store:
        await append_all(store, 300)
    return f"sqlite:///{path}"


@pytest.mark.parametrize(
    ("script", "form"),
    [(SCRIPT, []), (MODULE, ["--json"])],
    ids=["installed", "module"],
)
async def test_a_reader_that_goes_away_ends_it_quietly(
    url: str, script: tuple[str, ...], form: list[str]
) -> None:
    read, write = os.pipe()
    os.close(read)
    process = await asyncio.create_subprocess_exec(
        *(*script, "list", *form, "--limit", "1000", "--url", url),
        cwd=ROOT,
        stdout=write,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(write)
    _, err = await process.communicate()
    assert err == b""


def test_ctrl_c_while_it_loads_ends_it_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("inngest_outbox.console.commands.main.main", interrupted)
    with pytest.raises(SystemExit) as end:
        outbox()
    assert end.value.code == 130


def test_every_command_has_help_with_an_example() -> None:
    command = get_command(app)
    assert isinstance(command, TyperGroup)
    for name, each in command.commands.items():
        assert "Example" in (each.help or ""), name
        shown = CliRunner().invoke(app, [name, "--help"])
        assert (shown.exit_code, "`" in shown.stdout) == (0, False)
    shown = CliRunner().invoke(app, [])
    assert "Usage: outbox [OPTIONS] COMMAND" in shown.stdout
