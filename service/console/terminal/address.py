"""The address of the outbox that a command works on."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from service.config.outbox_url import url_in_schema
from service.config.settings import Settings

DEFAULT_URL: str = Settings.model_fields["outbox_url"].default


def in_schema(url: str) -> str:
    """The address with the schema that OUTBOX_SCHEMA names. Raises typer.BadParameter."""
    try:
        return url_in_schema(url, os.environ.get("OUTBOX_SCHEMA") or None)
    except ValueError as error:
        raise typer.BadParameter(f"OUTBOX_SCHEMA: {error}") from error


Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="OUTBOX_URL",
        callback=in_schema,
        help="sqlite:///path/to/file or postgresql://host/database.",
    ),
]
