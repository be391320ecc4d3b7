from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

from service.console.operations.bulk import PAGE
from service.console.operations.control_client import control_client
from service.console.operations.control_server import serve_control_socket
from service.errors import OutboxUnavailableError
from service.outbox.link import socket_folder
from service.outbox.link.socket_folder import control_address, sockets_of_services
from service.outbox.model import Filter, Named, State
from service.outbox.sqlite.store import open_sqlite_outbox
from tests.support.storage import append_all


async def test_a_command_waits_for_a_service_that_is_just_starting(tmp_path: Path) -> None:
    with control_address() as address:
        assert address
        async with open_sqlite_outbox(
            tmp_path / "outbox.db", max_pending=9, max_pending_per_user=9
        ) as outbox:

            async def paused() -> str | None:
                async with control_client(address, patience_seconds=60) as client:
                    return (await client.set_paused(paused=True, actor="ada")).paused_by

            command = asyncio.create_task(paused())
            await asyncio.sleep(0)
            assert not command.done()
            async with serve_control_socket(address, outbox.repairs, list):
                assert await command == "ada"


async def test_a_command_gives_up_when_nothing_listens(tmp_path: Path) -> None:
    with pytest.raises(OutboxUnavailableError, match="control socket does not answer"):
        async with control_client(str(tmp_path / "nobody"), patience_seconds=0.0):
            pass


async def test_a_service_that_hangs_is_said_and_what_may_still_happen(tmp_path: Path) -> None:
    path = str(tmp_path / "hanging")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as hanging:
        hanging.bind(path)
        hanging.listen()
        async with control_client(path, answer_seconds=0.05) as client:
            with pytest.raises(OutboxUnavailableError, match="may still be carried out"):
                await client.set_paused(paused=True, actor="ada")


@pytest.mark.parametrize("action", ["replay", "discard"])
async def test_a_change_names_a_page_of_ids(tmp_path: Path, action: str) -> None:
    """A filter alone may match a million rows, which one transaction would hold up posts with."""
    path = tmp_path / "outbox.db"
    async with open_sqlite_outbox(path, max_pending=9, max_pending_per_user=9) as outbox:
        [kept] = await append_all(outbox, 1)
        with control_address() as address:
            assert address
            async with (
                serve_control_socket(address, outbox.repairs, list),
                control_client(address) as client,
            ):
                change = getattr(client, action)
                page = tuple(f"e-{number}" for number in range(PAGE))
                filtered: Any = Filter(state=State.PENDING, limit=10**6)
                for wanted, words in (
                    (filtered, "got `null`"),
                    (Named(()), "names no rows"),
                    (Named((*page, "e")), "names more than 500 rows"),
                ):
                    with pytest.raises(OutboxUnavailableError, match=words):
                        await change(wanted, actor="ada")
                assert await change(Named(page), actor="ada") == []
        assert await outbox.intake.find(kept.id)


def test_a_service_s_unit_has_its_sockets_in_its_runtime_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path}:/of/another/purpose")
    with control_address("upgrade") as address:
        assert address is not None
        assert Path(address).parent.parent == tmp_path
        Path(address).touch()
        assert Path(address) in sockets_of_services("upgrade")
        monkeypatch.delenv("RUNTIME_DIRECTORY")
        assert Path(address) not in sockets_of_services("upgrade")
        monkeypatch.setattr(socket_folder, "UNIT_FOLDER", tmp_path)
        assert Path(address) in sockets_of_services("upgrade")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
async def test_a_socket_of_another_user_is_said_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    with pytest.raises(OutboxUnavailableError, match="as the service's user"):
        async with control_client(str(folder / "control"), patience_seconds=60):
            pass


def test_the_folder_of_a_service_that_was_killed_is_removed_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, living = tmp_path / "outbox-dead", tmp_path / "outbox-living"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        for folder in (dead, living):
            folder.mkdir()
        listening.bind(str(living / "control"))
        listening.listen()
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as killed:
            killed.bind(str(dead / "control"))
        (tmp_path / "outbox-other").mkdir()
        with control_address():
            names = {one.name for one in tmp_path.iterdir()}
        assert {"outbox-living", "outbox-other"} <= names
        assert "outbox-dead" not in names


def test_the_folder_of_a_service_that_is_about_to_listen_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with control_address() as address, contextlib.closing(socket.socket(socket.AF_UNIX)) as bound:
        assert address
        bound.bind(address)
        with control_address():
            assert Path(address).exists()
    assert not any(tmp_path.iterdir())


def test_a_folder_whose_maker_was_killed_is_removed_although_it_has_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = tmp_path / "outbox-dead"
    dead.mkdir()
    (dead / "lock").touch()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as killed:
        killed.bind(str(dead / "control"))
        socket_folder.sweep()
    assert not dead.exists()


def test_the_folder_of_a_service_that_ends_during_the_search_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ending, staying = tmp_path / "outbox-ending", tmp_path / "outbox-staying"
    found = [folder / "upgrade" for folder in (ending, staying)]
    staying.mkdir()
    found[1].touch()
    monkeypatch.setattr(socket_folder, "_found", lambda parent, _: found * (parent == tmp_path))
    assert sockets_of_services("upgrade") == found[1:]
