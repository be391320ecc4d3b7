"""What scripts and people call: `outbox … --json` and the targets of make."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from inngest_outbox.console.commands import main as outbox_script
from tests.support.fleet import ROOT
from tests.support.storage import PATIENCE_SECONDS

TARGETS = ("run", "test", "demo", "bench", "check", "stack", "docs")


def test_each_command_of_the_outbox_script_but_one_speaks_json() -> None:
    commands = get_command(outbox_script.app).commands

    def taking(option: str) -> set[str]:
        return {
            name
            for name, command in commands.items()
            if any(option in one.opts for one in command.params)
        }

    assert not [name for name, command in commands.items() if command.hidden]
    for name in commands:
        assert CliRunner().invoke(outbox_script.app, [name, "--help"]).exit_code == 0
    assert set(commands) - taking("--json") == {"upgrade"}
    dry_at_first = {"replay", "discard", "erase", "purge", "journal"}
    assert taking("-y") == dry_at_first
    assert taking("--yes") == {*dry_at_first, "pause", "resume", "upgrade"}


def made(*targets: str) -> str:
    """What make would do, whoever called the tests; nothing is done."""
    command = ["make", "--no-print-directory", "--dry-run", "--always-make", *targets]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=plain,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_has_its_targets_and_run_sends_events_to_a_fake_inngest_only_if_it_must() -> None:
    for target in TARGETS:
        assert made(target), target
    assert made("run").rstrip().endswith("python -m service serve --fake-inngest")
