"""The names that scripts and monitoring use: commands, their options, targets, variables."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from service.config.settings import Settings
from service.console.commands import main as outbox_script
from service.processes import main as service_script
from tests.support.fleet import ROOT

OUTBOX = {
    *("stats", "list", "show", "verify", "replay", "discard", "purge", "pause", "resume"),
    *("tail", "check", "audit", "backup", "move"),
}
VARIABLES = {
    *("APP_ENV", "HOST", "PORT", "OUTBOX_URL", "AWS_S3_REGION", "AWS_S3_BUCKET"),
    *("INNGEST_EVENT_KEY", "INNGEST_DEV", "INNGEST_BASE_URL", "INNGEST_EVENT_API_BASE_URL"),
    *("INNGEST_ENV", "INNGEST_EVENT_KEY_FALLBACK", "INNGEST_SIGNING_KEY", "OUTBOX_CONFIRM"),
    *("OUTBOX_UNCONFIRMED_MAX", "OUTBOX_EVENT_KEYS", "EVENT_TYPES_FILE", "JWT_ISSUER"),
    *("JWT_AUDIENCE", "SESSION_SECRET", "NEXTAUTH_SECRET", "AUTH_SECRET", "OIDC_ISSUER"),
    *("OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET", "ALLOWED_ORIGINS", "OPERATOR_EMAILS"),
    *("METRICS_TOKEN", "APP_SETTINGS_FILE", "DOCUMENT_CHECK", "DEV_LOGIN", "WEB_CONCURRENCY"),
    *("OUTBOX_BATCH_EVENTS", "OUTBOX_BATCH_BYTES", "OUTBOX_SENDERS", "OUTBOX_SEND_TIMEOUT"),
    *("OUTBOX_DRAIN_SECONDS", "OUTBOX_MAX_PENDING", "OUTBOX_MAX_PENDING_PER_USER"),
    *("OUTBOX_RETENTION", "LOG_LEVEL", "LOG_FORMAT", "USER_IDS_SHARED"),
}
TARGETS = ("run", "test", "demo", "bench", "check", "stack", "docs")


def test_the_service_has_its_commands() -> None:
    commands = get_command(service_script.app).commands
    assert {"serve", "relay", "worker", "demo", "migrate", "check"} <= commands.keys()


def test_the_outbox_script_has_its_commands_and_each_speaks_json() -> None:
    commands = get_command(outbox_script.app).commands
    assert commands.keys() >= OUTBOX
    silent = [
        name
        for name in OUTBOX
        if not any("--json" in option.opts for option in commands[name].params)
    ]
    assert silent == []


def test_the_service_reads_its_variables() -> None:
    assert Settings.variables().keys() >= VARIABLES


def made(*targets: str, folder: Path = ROOT) -> str:
    """What make would do, whoever called the tests; nothing is done."""
    command = ["make", "--no-print-directory", "--dry-run", "--always-make", *targets]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        command, cwd=folder, env=plain, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_has_its_targets_and_run_sends_events_to_a_fake_inngest_only_if_it_must() -> None:
    for target in TARGETS:
        assert made(target), target
    assert made("run").rstrip().endswith("python -m service serve --fake-inngest")
