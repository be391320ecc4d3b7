"""Rules of the suite: unit tests are alone, and a missing neighbour is a fault in CI."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.neighbours import lacks


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


@pytest.mark.parametrize(("ci", "outcome"), [("1", pytest.fail), ("", pytest.skip)])
def test_a_missing_neighbour_fails_in_ci_and_is_skipped_at_home(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome.Exception, match="pgbouncer"):
        lacks("pgbouncer")
