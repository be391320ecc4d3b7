"""How an `outbox` command runs and ends.

Exit codes: 0 done; 1 not found; 2 it can't be done. `check` has its own codes. A failure is one
sentence on standard error, never a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import typer

from service.errors import ServiceError

ABSENT, UNKNOWN = 1, 2

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work`. An error becomes a sentence and exit code 2."""
    with exit_on_fault():
        return asyncio.run(work)


@contextlib.contextmanager
def exit_on_fault() -> Iterator[None]:
    """Turn a ServiceError into a sentence on standard error and exit code 2."""
    try:
        yield
    except ServiceError as error:
        typer.echo(f"outbox: {error}", err=True)
        raise typer.Exit(UNKNOWN) from error


def not_found(event_id: str) -> typer.Exit:
    """Say that there is no such event; the caller raises the result."""
    typer.echo(f"outbox: there is no event {event_id} in this outbox.", err=True)
    return typer.Exit(ABSENT)
