"""`serve --fake-inngest` starts a fake Inngest only where no other one is meant, and says so."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.fleet import Process, client, environment, running
from tests.support.outbox_command import outbox_json
from tests.support.storage import eventually

DEV_SERVER = ("127.0.0.1", 8288)
SAID = r"fake Inngest: see them at (http://\S+)/fake-inngest/events"


def without_inngest(folder: Path, **changes: str) -> dict[str, str]:
    """No variable of Inngest's, so that a dev server at its usual address is meant."""
    given = environment(f"sqlite:///{folder / 'outbox.db'}", "", **changes)
    return {name: value for name, value in given.items() if value}


def nobody_listens() -> bool:
    with contextlib.suppress(OSError), socket.create_connection(DEV_SERVER, timeout=1):
        return False
    return True


def needs_no_dev_server() -> None:
    if not nobody_listens():
        pytest.skip("a dev server answers on this machine")


async def readiness(process: Process) -> dict[str, Any]:
    async with aiohttp.ClientSession() as http, http.get(f"{process.url}/readyz") as answer:
        detail: dict[str, Any] = (await answer.json())["detail"]
        return detail


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.slow)])
async def test_with_the_flag_events_go_to_a_fake_that_says_what_it_is(
    tmp_path: Path, processes: str
) -> None:
    needs_no_dev_server()
    settings = without_inngest(tmp_path, WEB_CONCURRENCY=processes)
    async with running("serve", "--fake-inngest", environment=settings) as process, client() as one:
        fake = (await process.said(SAID)).group(1)
        await process.said("events go to +a fake Inngest")
        assert not fake.endswith(":8288")
        detail = await readiness(process)
        assert detail["inngest"] == "fake"
        assert "off (a fake Inngest" in detail["confirmation"]
        await one.sign_in(process.url)
        assert await one.post(process.url) == 200
        url = settings["OUTBOX_URL"]
        told = await eventually(
            lambda: outbox_json(url, "stats"),
            lambda seen: seen["delivered"] and seen["destination"],
        )
        assert (told["destination"], told["confirmation"].split()[0]) == ("fake", "off")
        shown = await outbox_json(url, "show", one.accepted[0])
        assert shown["destination"] == "fake"
        async with aiohttp.ClientSession() as http, http.get(f"{fake}/fake-inngest/stats") as stats:
            assert stats.status == 200


async def test_without_the_flag_nothing_takes_the_place_of_a_dev_server(tmp_path: Path) -> None:
    needs_no_dev_server()
    # The locale can't write what the banner has.
    settings = without_inngest(tmp_path, PYTHONIOENCODING="ascii", AWS_S3_BUCKET="für-alle")
    async with running("serve", environment=settings) as process:
        await process.said(r"storage +bucket für-alle in eu-west-1")
        assert (await readiness(process))["inngest"] == "dev server"
        assert nobody_listens()
        assert not any("fake Inngest" in line for line in process.lines)
