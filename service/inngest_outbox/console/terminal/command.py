"""The run and the end of an `outbox` command.

Exit codes: 0 done; 1 not found; 2 it can't be done. `check` has its own codes. A failure is one
sentence on standard error. Only an error that nobody foresaw has a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Coroutine, Iterator
from typing import Annotated, Any, TypeVar

import typer

from inngest_outbox.config.outbox_url import file_fault, url_in_schema
from inngest_outbox.config.settings import Settings
from inngest_outbox.console.operations.search import MAX_CANDIDATES, FoundIds
from inngest_outbox.errors import ServiceError
from inngest_outbox.observe.printable import printable
from inngest_outbox.outbox.model import Row

ABSENT, UNKNOWN = 1, 2

T = TypeVar("T")
DEFAULT_URL: str = Settings.model_fields["outbox_url"].default


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work`. An error becomes a sentence and exit code 2."""
    with exit_on_fault():
        return asyncio.run(work)


@contextlib.contextmanager
def exit_on_fault() -> Iterator[None]:
    """Turn an error into a sentence on standard error and exit code 2.

    A pipe without a reader is not an error of the command.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except ServiceError as error:
        typer.echo(f"outbox: {printable(str(error))}", err=True)
        raise typer.Exit(UNKNOWN) from error
    except UnicodeEncodeError as error:
        typer.echo("outbox: An argument is no text in UTF-8.", err=True)
        raise typer.Exit(UNKNOWN) from error
    except OSError as error:
        typer.echo(f"outbox: {printable(file_fault(error.filename or 'A file', error))}", err=True)
        raise typer.Exit(UNKNOWN) from error


def one_event(found: FoundIds) -> Row:
    """The only event that was found. Exits with 1 without one, with 2 when there are several."""
    unambiguous(found)
    all_known(found)
    return found.rows[0]


def all_known(found: FoundIds) -> None:
    """Exit with 1 when a given id is of no event, with 2 when one is empty."""
    if "" in found.unknown:
        typer.echo("outbox: give an event's id, or how it begins.", err=True)
        raise typer.Exit(UNKNOWN)
    for one in found.unknown:
        typer.echo(f"outbox: there is no event {printable(one)} in this outbox.", err=True)
    if found.unknown:
        raise typer.Exit(ABSENT)


def unambiguous(found: FoundIds) -> None:
    """Exit with 2, and name the candidates, when a beginning is of several ids."""
    for beginning, rows in found.ambiguous:
        many = len(rows) > MAX_CANDIDATES
        count = f"more than {MAX_CANDIDATES}" if many else str(len(rows))
        typer.echo(f"outbox: {printable(beginning)} is the beginning of {count} ids:", err=True)
        for row in rows[:MAX_CANDIDATES]:
            words = f"  {row.id}  {row.state}  {row.name}"
            typer.echo(printable(words).rstrip(), err=True)
    if found.ambiguous:
        raise typer.Exit(UNKNOWN)


def in_schema(url: str) -> str:
    """The address with the schema that OUTBOX_SCHEMA names. Raises typer.BadParameter."""
    try:
        schema = os.environ.get("OUTBOX_SCHEMA", "").strip()
        return url_in_schema(url.strip() or DEFAULT_URL, schema or None)
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
