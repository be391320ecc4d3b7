"""`python -m service`: the commands that run the service.

A faulty configuration lists every fault at once and exits with 2; so does an outbox that can't be
opened.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
import uvloop
from dotenv import load_dotenv
from pydantic import SecretStr

from service.cli.serve import relay_only, serve, serve_as_worker, serve_with_workers
from service.documents.worker import run_worker
from service.errors import ConfigurationError, OutboxError, ServiceError
from service.inngest_client import make_client
from service.observe.logs import configure_logs
from service.outbox import migrations
from service.settings import Settings

FAULTY = 2

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Accept events over HTTP, keep them durably, deliver them to Inngest.",
)


@app.command("serve")
def serve_command(
    *,
    relay: Annotated[bool, typer.Option(help="Deliver too, not only accept.")] = True,
    listen_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    lifeline_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Accept posts and deliver them, until SIGTERM or SIGINT."""
    with _faults_end_the_process():
        settings = _load()
        logs = configure_logs(level=settings.log_level, format_name=settings.log_format)
        if listen_fd is not None and lifeline_fd is not None:
            uvloop.run(
                serve_as_worker(
                    settings, logs, relay=relay, listen_fd=listen_fd, lifeline_fd=lifeline_fd
                )
            )
        elif settings.web_concurrency > 1:
            own = [sys.executable, "-m", "service", "serve", "--relay" if relay else "--no-relay"]
            if code := uvloop.run(serve_with_workers(settings, logs, own)):
                raise typer.Exit(code)
        else:
            uvloop.run(serve(settings, logs, relay=relay))


@app.command("relay")
def relay_command() -> None:
    """Deliver without accepting posts, until SIGTERM or SIGINT."""
    with _faults_end_the_process():
        settings = _load()
        logs = configure_logs(level=settings.log_level, format_name=settings.log_format)
        uvloop.run(relay_only(settings, logs))


@app.command("worker")
def worker_command() -> None:
    """Run the Inngest function that reads documents, over an outgoing connection."""
    with _faults_end_the_process():
        settings = _load()
        logs = configure_logs(level=settings.log_level, format_name=settings.log_format)
        try:
            uvloop.run(run_worker(settings, make_client(settings)))
        finally:
            logs.flush()


@app.command("migrate")
def migrate_command() -> None:
    """Bring the outbox's schema up to date."""
    with _faults_end_the_process():
        applied = migrations.migrate(_load().outbox_url)
        typer.echo("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


@app.command("check")
def check_command(
    *, show: Annotated[bool, typer.Option(help="Print the effective settings.")] = True
) -> None:
    """Check the configuration and print it, secrets hidden; exits with 2 when it is faulty."""
    with _faults_end_the_process():
        settings = _load()
        if show:
            for variable, field in settings.variables().items():
                typer.echo(f"{variable}={_shown(getattr(settings, field))}")


@contextmanager
def _faults_end_the_process() -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        for fault in error.faults:
            typer.echo(f"configuration: {fault}", err=True)
        raise typer.Exit(FAULTY) from error
    except (OutboxError, ServiceError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(FAULTY) from error
    except OSError as error:
        typer.echo(f"can't start: {error}", err=True)
        raise typer.Exit(1) from error


def _load() -> Settings:
    load_dotenv(".env")
    return Settings.load(os.environ)


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, tuple):
        return ",".join(_shown(one) for one in value)
    return "" if value is None else str(value)


def main() -> None:
    """The entry point of `python -m service`."""
    app()


if __name__ == "__main__":
    main()
