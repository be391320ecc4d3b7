"""The `outbox` script as a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from tests.acceptance.fleet import ROOT


async def outbox(url: str, *arguments: str) -> Any:
    """What the script prints as JSON; it must end well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service.cli.outbox",
        *arguments,
        "--url",
        url,
        "--json",
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)
