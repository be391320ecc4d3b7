"""Quiet logs, and the guard that keeps unit tests to themselves."""

from __future__ import annotations

import logging
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.support.clock import Clock

ROOT = Path(__file__).parents[2]
# Python's own files, the package's, what hypothesis and coverage keep, and what Linux makes up.
READABLE = (*sysconfig.get_paths().values(), sys.base_prefix, f"{ROOT}/service", "/proc", "/usr")
# Hypothesis writes an example that fails to a temporary file first.
KEPT = (f"{ROOT}/.hypothesis", f"{tempfile.gettempdir()}/tmp", f"{ROOT}/.coverage")
# A module that is first imported within a test is compiled there, by Python and by pytest.
COMPILED = "/__pycache__/"
FORBIDDEN = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "socket.bind",
    "socket.connect",
    "socket.getaddrinfo",
    "sqlite3.connect",
    "subprocess.Popen",
}


class Guard:
    """While a unit test runs, it may open no socket, file or process."""

    def __init__(self) -> None:
        self.watching = False

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.watching:
            return
        if event in FORBIDDEN or (event == "open" and not allowed(*arguments[:3])):
            sentence = f"a unit test uses {event} {arguments[:1]}: move it to tests/integration"
            raise RuntimeError(sentence)


def allowed(path: object, mode: object, flags: object) -> bool:
    """Whether a file may be opened: one of this process's descriptors, or one to read."""
    if not isinstance(path, str | bytes):
        return isinstance(path, int)
    name = path if isinstance(path, str) else path.decode(errors="replace")
    if COMPILED in name:
        return True
    reads = not isinstance(mode, str) or not set(mode) & set("wax+")
    return name.startswith(KEPT) or (reads and (name.startswith(READABLE) or name.endswith(".py")))


GUARD = Guard()
sys.addaudithook(GUARD)


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """No socket, file or process."""
    GUARD.watching = True
    yield
    GUARD.watching = False


@pytest.fixture(scope="module")
def quiet() -> Iterator[None]:
    """Nothing but what is critical is logged."""
    before = structlog.get_config()
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=quiet, cache_logger_on_first_use=False)
    yield
    structlog.configure(**before)


@pytest.fixture
def clock() -> Clock:
    return Clock()
