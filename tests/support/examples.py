"""The examples of the documentation: which there are, and how they run."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
SECONDS = 120.0
_BLOCK = re.compile(r"<!-- (run: \w+|answer) -->\n```\w+\n(.*?)```", re.DOTALL)


@dataclass
class Example:
    """Commands of a page; `answer` is what they print, None where the page does not say."""

    needs: str
    commands: str
    answer: str | None = None


def examples(page: Path) -> list[Example]:
    found: list[Example] = []
    for kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind == "answer":
            found[-1].answer = text.strip()
        else:
            found.append(Example(kind.removeprefix("run: "), text))
    return found


def pages_that_need(needs: str) -> list[Path]:
    return [page for page in PAGES if any(one.needs == needs for one in examples(page))]


async def run(commands: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Run commands as a user would, in a POSIX shell; what they print."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-euc",
        commands,
        cwd=folder,
        env={**os.environ, **environment, "PATH": path},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SECONDS):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


def matches(answer: str, printed: str) -> bool:
    """Whether something was printed as the page says; `…` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in answer.split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None
