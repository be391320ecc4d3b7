"""`python -m inngest_outbox <command>` in the test's own process."""

from __future__ import annotations

import os

from click.testing import Result
from typer.testing import CliRunner

from inngest_outbox.processes.main import app
from tests.support.fleet import OURS
from tests.support.judged_command import judge_words

BARE = {
    "AWS_EC2_METADATA_DISABLED": "1",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    "AWS_CONFIG_FILE": "/nonexistent",
}


def service_command(*arguments: str, **environ: str) -> Result:
    """Run a command that ends by itself, with none of a developer's variables."""
    unset: dict[str, str | None] = {name: None for name in os.environ if name.startswith(OURS)}
    unread = {"PYTHON_DOTENV_DISABLED": "1"}  # `make run` leaves an .env beside the tests
    result = CliRunner(env={**unset, **BARE, **unread, **environ}).invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    judge_words(result.stdout)
    judge_words(result.stderr)
    assert "Traceback" not in result.output
    if result.exit_code == 2:
        assert (result.stdout, result.stderr.startswith(("configuration: ", "Usage: "))) == (
            "",
            True,
        )
    return result
