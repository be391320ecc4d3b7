"""The stack asks of each image what the table of images says that it has."""

from __future__ import annotations

import asyncio
import re
import subprocess
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.stack.compose_file import compose_services
from tests.stack.pinned_images import PinnedImage, pinned_images, python_image

WGET = ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8288/health"]


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return compose_services("*")


@pytest.fixture(scope="module")
def rows() -> dict[str, PinnedImage]:
    return pinned_images()


def others(parts: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if "build" not in part}


def row_of(part: dict[str, Any], rows: dict[str, PinnedImage]) -> PinnedImage:
    return rows[python_image() if "build" in part else part["image"]]


def missing(check: list[str], row: PinnedImage) -> set[str]:
    """The programs of a health check or a command that an image hasn't."""
    kind, *words = check
    called = {"sh", *words_of(words[0])} if kind == "CMD-SHELL" else {words[0]}
    if words[:2] == ["bash", "-c"]:
        called |= words_of(words[2])
    return called - set(row.tools) - set(row.programs) - builtins()


def words_of(script: str) -> set[str]:
    return {part.split()[0] for part in re.split(r"\n|;|&&|\|\|?", script) if part.split()}


def builtins() -> set[str]:
    listed = subprocess.run(
        ["bash", "-c", "compgen -bk"], capture_output=True, text=True, check=True
    )
    return set(listed.stdout.split())


def test_the_table_has_exactly_the_images_that_the_stack_names(
    parts: dict[str, Any], rows: dict[str, PinnedImage]
) -> None:
    assert {part["image"] for part in others(parts).values()} | {python_image()} == set(rows)


def test_each_health_check_calls_what_its_image_has(
    parts: dict[str, Any], rows: dict[str, PinnedImage]
) -> None:
    for name, part in parts.items():
        assert missing(part["healthcheck"]["test"], row_of(part, rows)) == set(), name


def test_a_health_check_by_a_tool_that_the_image_lacks_is_found(
    rows: dict[str, PinnedImage],
) -> None:
    [inngest] = [row for row in rows.values() if row.stand_in == "inngest"]
    assert missing(WGET, inngest) == {"wget"}
    assert missing(["CMD-SHELL", "curl -f http://127.0.0.1:8288/health"], inngest) == {"curl"}
    assert missing(["CMD", "bash", "-c", "read -r line && nc -z 127.0.0.1 8288"], inngest) == {"nc"}


@pytest.mark.parametrize(("status", "exit_code"), [(200, 0), (503, 1)])
async def test_the_health_check_of_inngest_reads_the_status_of_its_answer(
    parts: dict[str, Any], status: int, exit_code: int
) -> None:
    kind, *command = parts["inngest"]["healthcheck"]["test"]
    assert kind == "CMD"

    async def health(_: web.Request) -> web.Response:
        return web.Response(status=status, text="HTTP 200")

    app = web.Application()
    app.router.add_get("/health", health)
    async with TestServer(app) as server:
        command[-1] = command[-1].replace("$$", "$").replace("8288", str(server.port))
        assert await exit_code_of(command) == exit_code
    assert await exit_code_of(command) == 1


async def exit_code_of(command: list[str]) -> int:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    return await asyncio.wait_for(process.wait(), 30)


def test_each_command_begins_with_a_program_of_its_image(
    parts: dict[str, Any], rows: dict[str, PinnedImage]
) -> None:
    for name, part in parts.items():
        if part.get("command"):
            assert missing(["CMD", *part["command"]], row_of(part, rows)) == set(), name


def test_ports_variables_and_mounts_are_those_of_the_image(
    parts: dict[str, Any], rows: dict[str, PinnedImage]
) -> None:
    for part in others(parts).values():
        row = row_of(part, rows)
        assert {port["target"] for port in part.get("ports", [])} <= set(row.ports)
        assert set(part.get("environment") or {}) <= set(row.variables)
        for volume in part.get("volumes", []):
            assert volume["target"] in row.files
        for file in part.get("configs", []):
            assert file["target"].startswith(tuple(one for one in row.files if one.endswith("/")))
