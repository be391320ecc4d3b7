"""`python -m service worker`: the process that runs the Inngest function on documents."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

import uvloop

from service.config.settings import Settings
from service.event_types.types_file import documents_event_name, load_event_types
from service.inngest.address import make_client
from service.inngest.worker import WorkerStatus, run_worker
from service.observe.logs import configure_logs
from service.observe.service_manager import ServiceManager
from service.processes.startup import exit_on_fault, load_settings
from service.web.resources.worker_health import serve_worker_health


def main() -> None:
    """Run the worker by the arguments of `python -m service worker`."""
    parser = argparse.ArgumentParser(prog="python -m service worker")
    parser.add_argument("--health-port", type=int, default=None)
    run(parser.parse_args(sys.argv[2:]).health_port)


def run(health_port: int | None) -> None:
    """Run until SIGTERM or SIGINT; with `health_port`, answer health checks at HOST and there."""
    with exit_on_fault():
        settings = load_settings()
        event_name = documents_event_name(load_event_types(settings.event_types_file))
        logs = configure_logs(level=settings.log_level, format_name=settings.log_format)
        try:
            uvloop.run(_run(settings, event_name, health_port))
        finally:
            logs.close()


async def _run(settings: Settings, event_name: str, health_port: int | None) -> None:
    status = WorkerStatus()
    async with contextlib.AsyncExitStack() as stack:
        if health_port is not None:
            health = serve_worker_health(status, settings.host, health_port)
            await stack.enter_async_context(health)
        await stack.enter_async_context(ServiceManager(os.environ).told("Serving the function"))
        await run_worker(settings, make_client(settings), status, event_name)
