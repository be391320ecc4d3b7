"""Variables of `.env` in the working folder count, and those of the environment come first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fleet import ROOT
from tests.support.outbox_command import SCRIPT
from tests.support.service_command import BARE
from tests.support.storage import PATIENCE_SECONDS

OURS = ("AWS_", "INNGEST_", "OUTBOX_", "PORT")


def said(folder: Path, *command: str, **environ: str) -> str:
    """What a process prints in a folder."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**plain, **BARE, "PYTHONPATH": f"{ROOT}:{ROOT}/service", **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".env").write_text(
        "OUTBOX_RETENTION=3d\nPORT=3999\nINNGEST_DEV=http://127.0.0.1:1\n"
        "OUTBOX_URL=sqlite:///named-in-a-file.db\n"
    )
    return tmp_path


def test_the_service_reads_the_file_and_prefers_the_environment(folder: Path) -> None:
    lines = said(folder, sys.executable, "-m", "inngest_outbox", "check", PORT="4001").splitlines()
    assert {"OUTBOX_RETENTION=3d", "PORT=4001", "INNGEST_DEV=http://127.0.0.1:1"} <= set(lines)


def test_the_outbox_script_reads_the_file_and_prefers_the_environment(folder: Path) -> None:
    assert "named-in-a-file.db" in said(folder, *SCRIPT, "stats")
    other = said(folder, *SCRIPT, "stats", OUTBOX_URL="sqlite:///named-by-a-variable.db")
    assert "named-by-a-variable.db" in other


def test_a_file_that_is_no_text_is_a_fault_in_one_sentence(folder: Path) -> None:
    sentence = ".env: it is no text in UTF-8, or has a zero byte\n"
    for raw in (b"PORT=3\x00\n", b"# M\xfcller\nPORT=3999\n"):
        (folder / ".env").write_bytes(raw)
        found = said(folder, sys.executable, "-m", "inngest_outbox", "check")
        assert found == f"configuration: {sentence}"
    assert said(folder, *SCRIPT, "stats") == f"outbox: {sentence}"
    quiet = ("sh", "-c", '"$@" 2>/dev/null; echo $?', "sh")
    assert said(folder, *quiet, *SCRIPT, "stats") == "2\n"


def test_a_file_that_can_not_be_read_is_a_fault_in_one_sentence(folder: Path) -> None:
    (folder / ".env").unlink()
    (folder / ".env").symlink_to("/proc/self/mem")
    sentence = ".env: it can't be read: Input/output error\n"
    assert (
        said(folder, sys.executable, "-m", "inngest_outbox", "check")
        == f"configuration: {sentence}"
    )
    assert said(folder, *SCRIPT, "stats") == f"outbox: {sentence}"


def test_white_space_around_an_address_names_no_other_file(folder: Path) -> None:
    named = said(folder, *SCRIPT, "stats", OUTBOX_URL="sqlite:///a.db\n", OUTBOX_SCHEMA=" ")
    assert "a.db that can be seen" in named
