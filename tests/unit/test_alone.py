"""The guard of unit tests does its work."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest


def test_a_unit_test_can_open_no_file() -> None:
    with pytest.raises(RuntimeError, match="tests/integration"):
        Path("written-by-a-unit-test").write_text("")
    with pytest.raises(RuntimeError, match="tests/integration"):
        Path("README.md").read_text()


def test_a_unit_test_can_open_no_connection() -> None:
    with (
        socket.socket() as opened,
        pytest.raises(RuntimeError, match="tests/integration"),
    ):
        opened.connect(("127.0.0.1", 9))


def test_a_unit_test_can_start_no_process() -> None:
    with pytest.raises(RuntimeError, match="tests/integration"):
        subprocess.run([sys.executable, "--version"], check=True)
