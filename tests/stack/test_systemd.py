"""The systemd unit, and what the service tells its manager."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from inngest_outbox.outbox.link.socket_folder import UNIT_FOLDER
from tests.stack.command import run
from tests.support.neighbours import lacks

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "inngest-outbox.service"
LIMIT_SECONDS = 30
WATCHDOG_SECONDS = 0.9
MAX_EXPOSURE = 2.0


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is on this machine."""
    text = UNIT.read_text(encoding="utf-8")
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace("/opt/inngest-outbox/bin/inngest-outbox", sys.executable))
    shutil.copy(UNIT.with_suffix(".socket"), tmp_path)
    return copy


def analyzed(*arguments: str) -> str:
    found = shutil.which("systemd-analyze")
    done = run(found or lacks("systemd-analyze (Debian's package systemd)"), *arguments)
    return done.stdout + done.stderr


def test_the_units_are_valid(unit: Path) -> None:
    assert analyzed("verify", str(unit), str(unit.with_suffix(".socket"))) == ""


def test_the_unit_exposes_little_of_the_machine(unit: Path) -> None:
    said = analyzed("security", "--offline=true", "--no-pager", str(unit))
    found = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert float(found[1]) <= MAX_EXPOSURE


def test_the_unit_is_as_the_service_needs_it() -> None:
    """It leaves time to stop, does not restart a faulty configuration, and makes the folder for
    sockets where commands look for a service.
    """
    settings = dict(
        line.split("=", 1) for line in UNIT.read_text("utf-8").splitlines() if "=" in line
    )
    assert settings["Type"] == "notify"
    assert int(settings["TimeoutStopSec"]) > 15 + 10
    assert settings["RestartPreventExitStatus"] == "2"
    assert Path("/run", settings["RuntimeDirectory"]) == UNIT_FOLDER
    assert settings["RuntimeDirectoryMode"] == "0700"


@pytest.fixture
def manager(short_path: Path) -> Iterator[socket.socket]:
    """The socket on which systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(short_path / "notify"))
        listening.settimeout(LIMIT_SECONDS)
        yield listening


@pytest.fixture
def service(manager: socket.socket, short_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "NOTIFY_SOCKET": manager.getsockname(),
        "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1_000_000)),
        "OUTBOX_URL": f"sqlite:///{short_path}/outbox.db",
        "PYTHONPATH": str(Path(__file__).parents[2] / "service"),
        "INNGEST_DEV": "http://inngest.invalid:8288",
        "AWS_S3_REGION": "eu-west-1",
        "AWS_S3_BUCKET": "documents",
        "PORT": "0",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "inngest_outbox", "serve"], cwd=short_path, env=environment
    )
    yield process
    process.kill()
    process.wait()


def heard_but_pings(manager: socket.socket) -> str:
    """The next message that is no sign of life."""
    while (heard := manager.recv(4096)) == b"WATCHDOG=1":
        pass
    return heard.decode()


def test_systemd_hears_that_it_is_ready_lives_and_stops(
    manager: socket.socket, service: subprocess.Popen[bytes]
) -> None:
    ready, status = heard_but_pings(manager).splitlines()
    assert ready == "READY=1"
    url = status.removeprefix("STATUS=Listening on ")
    with urllib.request.urlopen(f"{url}/readyz", timeout=LIMIT_SECONDS) as answer:
        assert answer.status == 200
    manager.settimeout(WATCHDOG_SECONDS)
    for _ in range(3):
        assert manager.recv(4096) == b"WATCHDOG=1"
    manager.settimeout(LIMIT_SECONDS)
    service.send_signal(signal.SIGTERM)
    assert heard_but_pings(manager).startswith("STOPPING=1")
    assert service.wait(LIMIT_SECONDS) == 0
