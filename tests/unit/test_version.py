"""Both programs print the version of the package."""

from __future__ import annotations

from importlib import metadata

import pytest
import typer
from typer.testing import CliRunner

from service.console.commands.main import app as outbox
from service.processes.main import app as service


@pytest.mark.parametrize(("app", "name"), [(service, "service"), (outbox, "outbox")])
def test_the_version_is_printed(app: typer.Typer, name: str) -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (
        0,
        f"{name} {metadata.version('inngest-outbox')}\n",
    )
