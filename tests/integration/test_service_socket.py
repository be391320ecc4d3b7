"""The sockets of services: where they are, who may use them, and what a command says of them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest
from structlog.testing import capture_logs

from inngest_outbox.bootstrap import stores
from inngest_outbox.bootstrap.stores import open_served_outbox
from inngest_outbox.config.settings import Settings
from inngest_outbox.errors import OutboxError, OutboxUnavailableError, UpgradeError
from inngest_outbox.observe.recorder import NullRecorder
from inngest_outbox.outbox.link import socket_folder
from inngest_outbox.outbox.link.messages import PROTOCOL, Fault, Hello, Status
from inngest_outbox.outbox.link.outbox import remote
from inngest_outbox.outbox.link.served import COMMAND_POLICY, Served, outbox_at, running_service
from inngest_outbox.outbox.link.server import ServedPart, serve_link
from inngest_outbox.outbox.link.socket_folder import service_socket, sockets_of_services
from inngest_outbox.outbox.link.store_link import LinkPolicy, open_link
from tests.support.remote_storage import status_of
from tests.support.storage import PATIENCE_SECONDS, append_all, eventually

URL = "sqlite:///outbox.db"
OUTBOX = outbox_at(URL)
QUICK = LinkPolicy(
    patience_seconds=0.1,
    silence_seconds=0.1,
    away=COMMAND_POLICY.away,
    lost=COMMAND_POLICY.lost,
)


@pytest.fixture(autouse=True)
def _own_folder(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))


async def test_a_service_takes_events_where_there_can_be_no_socket(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short_path / "none"))
    settings = Settings.load({"OUTBOX_URL": f"sqlite:///{short_path / 'outbox.db'}"})
    async with open_served_outbox(settings, NullRecorder(), status=status_of) as outbox:
        await append_all(outbox, 1)


@pytest.mark.parametrize(
    ("given", "is_said"),
    [
        ({"OUTBOX_URL": "sqlite:////tmp/x.db"}, True),
        ({"OUTBOX_URL": "sqlite:////tmp/x.db", "OUTBOX_JOURNAL": "s3://bucket/prefix"}, False),
        ({"OUTBOX_URL": "postgresql://h/x"}, False),
    ],
)
async def test_it_is_said_that_an_outbox_may_be_lost_that_has_no_journal(
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    is_said: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(stores, "loss_of_volume", lambda path: f"{path} goes.")
    monkeypatch.setattr(stores, "open_outbox", None)  # it is said before
    with capture_logs() as logged, pytest.raises(TypeError):
        async with open_served_outbox(Settings.load(given), NullRecorder(), status=status_of):
            pass
    said = {"event": "outbox_may_be_lost", "log_level": "warning", "reason": "/tmp/x.db goes."}
    assert logged == [said] * is_said


async def test_a_command_gives_up_when_nothing_listens(short_path: Path) -> None:
    with pytest.raises(OutboxUnavailableError) as absent:
        async with open_link(str(short_path / "absent"), QUICK):
            pass
    assert str(absent.value) == "The service holds the outbox, but its socket does not answer."


async def of_another_version(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer):
        assert await reader.read(100) == msgpack(Hello(PROTOCOL))
        writer.write(msgpack(Fault(0, "OutboxUnavailableError", "It speaks version 7.", None)))
        await reader.read()  # the caller leaves


async def test_a_service_of_another_version_is_said_at_once(short_path: Path) -> None:
    server = await asyncio.start_unix_server(of_another_version, path=short_path / "other")
    patient = dataclasses.replace(COMMAND_POLICY, patience_seconds=3600)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(OutboxUnavailableError, match="It speaks version 7"):
            async with open_link(str(short_path / "other"), patient):
                pass
    server.close()


async def test_a_service_that_hangs_is_said_and_what_may_still_happen(short_path: Path) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            writer.write(msgpack(Status()))
            await reader.read()

    server = await asyncio.start_unix_server(hang, path=short_path / "hanging")
    patient = dataclasses.replace(QUICK, patience_seconds=PATIENCE_SECONDS)
    async with open_link(str(short_path / "hanging"), patient) as link:
        served: Served = remote(Served, link)  # type: ignore[assignment]
        with pytest.raises(OutboxUnavailableError) as lost:
            await served.upgrade()
    assert str(lost.value) == "The service has not answered. The command may still be carried out."
    server.close()


class Named:
    """A service that says its name when it is asked for an upgrade."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def upgrade(self) -> None:
        raise UpgradeError(self._name)


async def told_by_the_service_on(url: str) -> str:
    with pytest.raises(OutboxError) as told:
        async with running_service(url) as service:
            await service.upgrade()
    return str(told.value)


async def test_a_service_is_found_by_its_outbox_and_no_other_one_is_asked(short_path: Path) -> None:
    (short_path / "kept").mkdir()
    (short_path / "linked").symlink_to("kept")
    asked: list[str] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append("the other version")
        await of_another_version(reader, writer)

    async with contextlib.AsyncExitStack() as stack:
        for name, url in (
            ("first", URL),
            ("linked", f"sqlite:///{short_path}/linked/outbox.db"),
            ("database", "postgresql://ada:old@db/outbox"),
            ("second", URL),
        ):
            listening = stack.enter_context(service_socket(outbox_at(url)))
            assert listening
            part = ServedPart(Served, Named(name))
            await stack.enter_async_context(serve_link(listening, [part], Status))
        listening = stack.enter_context(service_socket(outbox_at("sqlite:///7.db")))
        assert listening
        stack.callback((await asyncio.start_unix_server(refuse, sock=listening)).close)
        where = "on this outbox, on this machine and as this user (OUTBOX_URL or --url)."
        for url, told in (
            (f"sqlite:///{short_path}/kept/outbox.db", "linked"),
            ("postgresql://ada:new@db/outbox", "database"),
            ("postgresql://bob:new@db/outbox", f"No service runs {where}"),
            ("sqlite:///none.db", f"No service runs {where}"),
            (URL, f"2 services run {where}"),
        ):
            assert await told_by_the_service_on(url) == told
        assert asked == []
        assert await told_by_the_service_on("sqlite:///7.db") == "It speaks version 7."
        assert asked == ["the other version"]
        assert "store-link" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_a_service_that_answers_after_seconds_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time
    with service_socket(OUTBOX) as listening:
        assert listening
        command = asyncio.create_task(told_by_the_service_on(URL))
        await eventually(lambda: "store-link" in {task.get_name() for task in asyncio.all_tasks()})
        monkeypatch.setattr(loop, "time", lambda: now() + 3)
        async with serve_link(listening, [ServedPart(Served, Named("late"))], Status):
            assert await command == "late"


def test_the_sockets_of_a_unit_are_in_its_runtime_directory(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = short_path / "run"
    runtime.mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{runtime}:/of/another/purpose")
    with service_socket(OUTBOX) as listening:
        assert listening
        path = Path(listening.getsockname())
        assert path.parent.parent == runtime
        assert sockets_of_services(OUTBOX) == [path]
        monkeypatch.delenv("RUNTIME_DIRECTORY")
        assert sockets_of_services(OUTBOX) == []
        monkeypatch.setattr(socket_folder, "UNIT_FOLDER", runtime)
        assert sockets_of_services(OUTBOX) == [path]
    monkeypatch.setenv("RUNTIME_DIRECTORY", "")
    with contextlib.suppress(ZeroDivisionError), service_socket(OUTBOX) as listening:
        assert listening
        path = Path(listening.getsockname())
        assert path.parent.parent == short_path
        raise ZeroDivisionError
    assert not path.parent.exists()
    with service_socket(OUTBOX) as listening:
        assert listening
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(runtime))
        assert sockets_of_services(OUTBOX) == [Path(listening.getsockname())]
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert sockets_of_services(OUTBOX) == []  # another user's socket is no service of ours
    with service_socket(OUTBOX), service_socket(OUTBOX):

        def end_all() -> int:
            for folder in runtime.iterdir():
                shutil.rmtree(folder)
            return os.getuid()

        monkeypatch.setattr(os, "geteuid", end_all)
        assert sockets_of_services(OUTBOX) == []  # they have ended meanwhile


def test_a_path_that_is_too_long_on_one_system_has_no_socket_on_any(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service_socket(OUTBOX) as listening:
        assert listening
        size = len(listening.getsockname())
    # A path of 104 bytes; macOS takes 103, Linux 107.
    deep = short_path / ("é" * ((103 - size) // 2) + "x" * ((103 - size) % 2))
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with capture_logs() as logged, service_socket(OUTBOX) as listening:
        assert listening is None
    said = {"event": "no_control_socket", "reason": f"the path of {deep} is too long"}
    assert logged == [{**said, "log_level": "warning"}]
    assert list(deep.iterdir()) == []


DIES = """
import os, signal, tempfile
from inngest_outbox.outbox.link.socket_folder import service_socket
with service_socket('a') as listening:
    print(listening.getsockname(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_folder_of_a_service_that_was_killed_is_removed_at_the_next_start(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (short_path / "outbox-being-made").mkdir()
    for name in ("with-a/lock", "with-a/service", "with-another/service"):  # of other programs
        (short_path / name).parent.mkdir(exist_ok=True)
        (short_path / name).touch()
    with service_socket(OUTBOX) as living:
        assert living
        done = subprocess.run(
            [sys.executable, "-c", DIES],
            env={**os.environ, "TMPDIR": str(short_path)},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        dead = Path(done.stdout.strip())
        assert dead.exists()
        assert sockets_of_services(OUTBOX) == [Path(living.getsockname())]
        shutil.copytree(dead.parent, short_path / "outbox-another", ignore=lambda *_: ["service"])
        with monkeypatch.context() as patched:
            patched.setattr(os, "geteuid", lambda: os.getuid() + 1)
            with service_socket(OUTBOX):
                assert dead.exists()  # another user's
        flock = fcntl.flock

        def late(lock: BinaryIO, how: int) -> None:
            if how == fcntl.LOCK_EX:
                monkeypatch.setattr(fcntl, "flock", flock)
                with service_socket(OUTBOX):
                    pass  # it removes no folder that is being made
            flock(lock, how)

        monkeypatch.setattr(fcntl, "flock", late)
        with service_socket(OUTBOX) as other:
            assert other
            names = {one.name for one in short_path.iterdir()}
            assert Path(living.getsockname()).exists()
            shutil.rmtree(Path(other.getsockname()).parent)  # as whatever clears old files does
        assert "outbox-being-made" in names
        assert not names & {"outbox-another", dead.parent.name}
    left = {one.name for one in short_path.iterdir()}
    assert left == {"outbox-being-made", "with-a", "with-another"}


def msgpack(message: object) -> bytes:
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(4, "big") + body
