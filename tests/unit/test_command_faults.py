"""How a command ends on a fault: one sentence, never a traceback; both print their version."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from importlib import metadata

import pytest
import typer
from typer.testing import CliRunner

from inngest_outbox.console.commands.main import app as outbox
from inngest_outbox.console.terminal.command import DEFAULT_URL, exit_on_fault, in_schema
from inngest_outbox.errors import OutboxUnavailableError
from inngest_outbox.processes import startup
from inngest_outbox.processes.main import app as service

FORBIDDEN = PermissionError(13, "Permission denied", "/data/outbox.db")
RIGHTS = (
    "This user may not write /data/outbox.db: run the command as the user who owns it, or mend the "
    "rights of the file and its folder."
)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            OutboxUnavailableError("The disk\x1b[2J\nis full."),
            "outbox: The disk\ufffd[2J is full.\n",
        ),
        (
            OSError(28, "No space left", "/data/\x1b[2J"),
            "outbox: /data/\ufffd[2J can't be used: No space left.\n",
        ),
        (OSError(28, "No space left"), "outbox: A file can't be used: No space left.\n"),
        (ConnectionResetError(), "outbox: A file can't be used: ConnectionResetError.\n"),
        (FORBIDDEN, f"outbox: {RIGHTS}\n"),
    ],
)
def test_a_fault_is_one_sentence_and_exit_code_2(
    fault: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, exit_on_fault():
        raise fault
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("exit_on_fault", [exit_on_fault, startup.exit_on_fault])
def test_a_reader_that_went_away_is_no_fault_of_the_command(
    exit_on_fault: Callable[[], contextlib.AbstractContextManager[None]],
) -> None:
    with pytest.raises(BrokenPipeError), exit_on_fault():
        raise BrokenPipeError


def test_white_space_around_an_address_and_a_schema_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OUTBOX_SCHEMA", " queue\n")
    named = "postgresql://h/x?options=-coutbox.schema%3Dqueue"
    assert (in_schema(" postgresql://h/x\n"), in_schema(" ")) == (named, DEFAULT_URL)
    monkeypatch.setenv("OUTBOX_SCHEMA", " ")
    assert in_schema("postgresql://h/x") == "postgresql://h/x"


@pytest.mark.parametrize(("app", "name"), [(service, "service"), (outbox, "outbox")])
def test_the_version_is_printed_and_without_a_command_the_help(app: typer.Typer, name: str) -> None:
    assert "Print the version." in CliRunner().invoke(app, []).output
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (
        0,
        f"{name} {metadata.version('inngest-outbox')}\n",
    )
