"""The `outbox` script as a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
import tomllib
from typing import Any

from tests.support.fleet import ROOT


def _installed() -> tuple[str, ...]:
    """What pip makes of the project's entry point."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["outbox"].partition(":")
    return sys.executable, "-c", f"from {module} import {function}; {function}()"


SCRIPT = _installed()


async def outbox(url: str, *arguments: str) -> Any:
    """What the script prints as JSON; it must end well."""
    process = await asyncio.create_subprocess_exec(
        *SCRIPT,
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
