"""The `outbox` script beside an outbox of the test's own."""

from __future__ import annotations

import asyncio
import json
import sys
import tomllib
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from inngest_outbox.console.commands.main import app
from inngest_outbox.outbox.model import Dead, Retry, Settlement
from tests.support.fleet import ROOT
from tests.support.judged_command import judge_outbox
from tests.support.storage import Outbox, append_all, claim


def _installed() -> tuple[str, ...]:
    """What pip makes of the project's entry point."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["outbox"].partition(":")
    return sys.executable, "-c", f"from {module} import {function}; {function}()"


SCRIPT = _installed()


async def outbox_command(path: Path | str, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command."""
    url = path if isinstance(path, str) else f"sqlite:///{path}"
    # A command has a loop of its own, and the outbox under test goes on meanwhile.
    result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--url", url])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    judge_outbox(arguments, result.exit_code, result.stdout, result.stderr)
    return result.exit_code, result.stdout, result.stderr


async def outbox_process(*arguments: str) -> tuple[int | None, str]:
    """Exit code and output of one command in a process of its own: others may run beside it."""
    code, out, err = await _ran(*arguments)
    return code, out + err


async def outbox(url: str, *arguments: str) -> Any:
    """What such a command prints as JSON; it must end well."""
    code, out, err = await _ran(*arguments, "--url", url, "--json")
    assert code == 0, err
    return json.loads(out)


async def _ran(*arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *SCRIPT, *arguments, cwd=ROOT, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    judge_outbox(arguments, process.returncode, out.decode(), err.decode())
    return process.returncode, out.decode(), err.decode()


async def outbox_json(path: Path | str, *arguments: str) -> Any:
    """What a command that succeeds prints with --json."""
    code, out, err = await outbox_command(path, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


async def one_of_each(outbox: Outbox) -> dict[str, str]:
    """Rows in every state but `sent`; returns their ids by state."""
    dead, isolated, delivered = await append_all(outbox, 3, "u-1")
    batch = await claim(outbox)
    seqs = [entry.seq for entry in batch.entries]
    await outbox.queue.settle(
        Settlement(
            batch.claim,
            dead=[Dead(seqs[0], 3, "rejected", "the name is missing")],
            retry=[Retry(seqs[1], 60.0, 1, isolated=True, note="refused: no")],
            delivered=[seqs[2]],
        )
    )
    [held] = await append_all(outbox, 1, "u-2")
    await claim(outbox)
    return {
        "dead": dead.id,
        "pending": isolated.id,
        "delivered": delivered.id,
        "delivering": held.id,
    }
