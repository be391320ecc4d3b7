"""A service in the test's own process, where a process of its own would add nothing but its start.

It is put together and listens as `serve` does. Signals, logs and exit codes need a process.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass

import structlog

from inngest_outbox.bootstrap.service import run_service
from inngest_outbox.config.settings import Settings
from inngest_outbox.processes.acceptor import listen_on
from inngest_outbox.processes.listening import open_listening
from tests.support.described_answers import described_answers


@dataclass(frozen=True, slots=True)
class ServiceHere:
    """Where it answers."""

    url: str


@contextlib.asynccontextmanager
async def service_here(environment: Mapping[str, str]) -> AsyncIterator[ServiceHere]:
    """Run a service with these settings until the block ends.

    boto reads its credentials from this process's environment.
    """
    settings = Settings.load(environment)
    with _own_log(), open_listening("127.0.0.1", 0) as listening:
        async with (
            run_service(settings) as service,
            described_answers(service.app),
            listen_on(service.app, service.recorder, listening.sockets),
        ):
            yield ServiceHere(listening.url)


@contextlib.contextmanager
def _own_log() -> Iterator[None]:
    """Keep what is logged meanwhile out of what commands print in this process.

    structlog follows sys.stdout wherever it goes, and so into what a command prints.
    """
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        yield
    finally:
        structlog.configure(**before)
