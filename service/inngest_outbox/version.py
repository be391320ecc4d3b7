"""`--version` of both programs."""

# Annotations are evaluated here: the option's callback is a local function.
from importlib import metadata
from typing import Annotated

import typer

_DISTRIBUTION = "inngest-outbox"


def add_version(app: typer.Typer, program: str, help_text: str) -> None:
    """Give `app` its help and the option `--version`."""

    def say(wanted: bool) -> None:
        if wanted:
            typer.echo(f"{program} {metadata.version(_DISTRIBUTION)}")
            raise typer.Exit

    @app.callback(help=help_text)
    def options(
        *,
        version: Annotated[
            bool, typer.Option("--version", callback=say, is_eager=True, help="Print the version.")
        ] = False,
    ) -> None:
        del version
