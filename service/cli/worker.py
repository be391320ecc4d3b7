"""`python -m service worker`: the process that runs the Inngest function on documents."""

from __future__ import annotations

import uvloop

from service.cli.starting import faults_end_the_process, load_settings
from service.documents.worker import run_worker
from service.inngest_client import make_client
from service.observe.logs import configure_logs


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    with faults_end_the_process():
        settings = load_settings()
        logs = configure_logs(level=settings.log_level, format_name=settings.log_format)
        try:
            uvloop.run(run_worker(settings, make_client(settings)))
        finally:
            logs.close()
