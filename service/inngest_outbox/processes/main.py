"""`python -m inngest_outbox`: the commands that run the service.

A faulty configuration lists every fault at once and exits with 2; so does an outbox that can't be
opened. Each command loads its own module, so that a process starts soon.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
import uvloop

from inngest_outbox.config.settings import Settings
from inngest_outbox.loading import loading
from inngest_outbox.observe.logs import LogStream, configure_logs
from inngest_outbox.processes.child_process import Handles, tell_fault
from inngest_outbox.processes.listening import Listening, open_listening
from inngest_outbox.processes.startup import exit_on_fault, load_settings
from inngest_outbox.version import add_version

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
add_version(app, "service", "Accept events over HTTP, keep them durably, deliver them to Inngest.")


@app.command("serve")
def serve_command(
    *,
    relay: Annotated[bool, typer.Option(help="Deliver too, not only accept.")] = True,
    fake_inngest: Annotated[
        bool,
        typer.Option(
            "--fake-inngest",
            help="In development: send events to a fake Inngest where no INNGEST_* variable is "
            "set and no dev server answers.",
        ),
    ] = False,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Start on an SQLite file whose log is missing or another file's: the events that "
            "were accepted last are lost.",
        ),
    ] = False,
    fake_inngest_url: Annotated[str | None, typer.Option(hidden=True)] = None,
    store: Annotated[bool, typer.Option("--store", hidden=True)] = False,
    take_over: Annotated[bool, typer.Option("--take-over", hidden=True)] = False,
    store_socket: Annotated[str, typer.Option(hidden=True)] = "",
    listen_fd: Annotated[list[int] | None, typer.Option(hidden=True)] = None,
    lifeline_fd: Annotated[int, typer.Option(hidden=True)] = -1,
) -> None:
    """Accept posts and deliver them, until SIGTERM or SIGINT."""
    with exit_on_fault(lambda fault: tell_fault(lifeline_fd, fault)):
        settings, logs = _begun()
        settings = settings.with_accepted_loss(accepts=accept_loss)
        if fake_inngest_url:
            settings = settings.with_fake_inngest(fake_inngest_url)
        handles = Handles(listen_fd or [], lifeline_fd)
        if store:
            with loading():
                from inngest_outbox.processes.store_process import serve_as_store
            uvloop.run(serve_as_store(settings, logs, handles, relay=relay, take_over=take_over))
        elif store_socket:
            with loading():
                from inngest_outbox.processes.front_process import serve_as_front
            front = serve_as_front(settings, logs, handles, store=store_socket, take_over=take_over)
            uvloop.run(front)
        else:
            with open_listening(settings.host, settings.port) as listening:
                _serve(settings, logs, listening, relay=relay, fake_inngest=fake_inngest)


def _serve(
    settings: Settings, logs: LogStream, listening: Listening, *, relay: bool, fake_inngest: bool
) -> None:
    if settings.web_concurrency == 1:
        with loading():
            from inngest_outbox.processes.serve import serve
        uvloop.run(serve(settings, logs, listening, relay=relay, fake_inngest=fake_inngest))
        return
    with loading():
        from inngest_outbox.processes.parent import serve_with_processes
    code = uvloop.run(
        serve_with_processes(settings, logs, listening, relay=relay, fake_inngest=fake_inngest)
    )
    if code:
        raise typer.Exit(code)


@app.command("relay")
def relay_command() -> None:
    """Deliver without accepting posts, until SIGTERM or SIGINT."""
    with exit_on_fault():
        settings, logs = _begun()
        with loading():
            from inngest_outbox.processes.serve import relay_only
        uvloop.run(relay_only(settings, logs))


@app.command("worker")
def worker_command(
    *,
    health_port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="Answer GET /healthz and /readyz at HOST and here."),
    ] = None,
) -> None:
    """Run the Inngest function that reads documents, over an outgoing connection."""
    with exit_on_fault():
        settings, logs = _begun()
        with loading():
            from inngest_outbox.processes.worker import serve_functions
        uvloop.run(serve_functions(settings, logs, health_port))


@app.command("demo")
def demo_command(
    *,
    posts_per_second: Annotated[float, typer.Option(min=1, help="The pace of the posts.")] = 200,
    quick: Annotated[bool, typer.Option(help="A third of the time.")] = False,
) -> None:
    """Show for half a minute how nothing is lost; exits with 1 if an accepted event was."""
    with exit_on_fault():
        from inngest_outbox.dev.demo.demo import Pace, demo

        pace = Pace(posts_per_second)
        if quick:
            pace = Pace(posts_per_second, calm_seconds=1, outage_seconds=2, after_seconds=1)
        if code := asyncio.run(demo(pace)):
            raise typer.Exit(code)


@app.command("migrate")
def migrate_command() -> None:
    """Bring the outbox's schema up to date."""
    with exit_on_fault():
        from inngest_outbox.outbox import schema

        applied = schema.migrate(load_settings().store_url)
        typer.echo("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


@app.command("check")
def check_command() -> None:
    """Check the configuration, Inngest and the bucket, and print the settings, secrets hidden.

    Exits with 2 when the configuration is faulty, with 1 when Inngest or the bucket would not
    serve.
    """
    with exit_on_fault():
        from inngest_outbox.processes.check import check

        if code := check(load_settings()):
            raise typer.Exit(code)


def _begun() -> tuple[Settings, LogStream]:
    """The settings and the log of a command that stays. Raises ConfigurationError."""
    settings = load_settings()
    return settings, configure_logs(level=settings.log_level, format_name=settings.log_format)


def main() -> None:
    """Run the command that the arguments name."""
    app()
