"""A container engine: the one that answers, else Debian's Docker, started for this run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.stack.command import StackError, run, say

WORK = Path(os.environ.get("STACK_WORK", "/var/tmp/outbox-stack"))
PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "docker-compose", "debootstrap", "iptables")
START_SECONDS = 60


@contextlib.contextmanager
def engine() -> Iterator[None]:
    """Make `docker` answer inside the block; an engine that this started is stopped after it.

    Its data stay in STACK_WORK, so that the next run builds from its cache.
    """
    if _answers():
        say("using the container engine that runs")
        yield
        return
    _install()
    WORK.mkdir(parents=True, exist_ok=True)
    os.environ["DOCKER_HOST"] = f"unix://{WORK}/docker.sock"
    if _answers():
        yield
        return
    daemon = _start()
    try:
        _wait_for(daemon)
        yield
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        daemon.wait(START_SECONDS)


def _answers() -> bool:
    return bool(shutil.which("docker")) and run("docker", "info", check=False).returncode == 0


def _install() -> None:
    if shutil.which("dockerd") and shutil.which("debootstrap") and shutil.which("docker"):
        return
    if os.getuid() or not shutil.which("apt-get"):
        raise StackError("no container engine answers, and only root on Debian can install one")
    say("installing Docker from Debian's packages")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq")
    run("apt-get", "install", "-qq", "--no-install-recommends", *PACKAGES, env=environment)


def _start() -> subprocess.Popen[bytes]:
    say(f"starting dockerd; its data are in {WORK}")
    with (WORK / "dockerd.log").open("wb") as log:
        return subprocess.Popen(
            [
                "dockerd",
                f"--host=unix://{WORK}/docker.sock",
                f"--data-root={WORK}/data",
                f"--exec-root={WORK}/exec",
                f"--pidfile={WORK}/dockerd.pid",
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait_for(daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers():
        if daemon.poll() is not None or time.monotonic() > deadline:
            words = (WORK / "dockerd.log").read_text("utf-8").splitlines()[-3:]
            raise StackError("dockerd did not start: " + " | ".join(words))
        time.sleep(0.3)
