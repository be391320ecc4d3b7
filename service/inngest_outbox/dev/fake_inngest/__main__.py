"""`python -m inngest_outbox.dev.fake_inngest`, a process that runs until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from inngest_outbox.dev.fake_inngest.server import FakeInngest, FakeOptions

_DEV_SERVER_PORT = 8288


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; 1 when the port is taken."""
    options = _parser().parse_args(arguments)
    try:
        asyncio.run(_serve(options))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"The fake Inngest can't start: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m inngest_outbox.dev.fake_inngest",
        description="A fake of Inngest's Event API and REST API.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=_DEV_SERVER_PORT, help="0: any free one")
    parser.add_argument("--keys", help="event keys to accept, comma-separated; default: any")
    parser.add_argument("--sink", action="store_true", help="only count; for benchmarks")
    parser.add_argument("--signing-key", help="guards the REST API; default: no key is needed")
    parser.add_argument("--store", type=Path, help="a file for stored events; default: temporary")
    parser.add_argument(
        "--store-rate", type=float, help="events stored a second; default: before the answer"
    )
    parser.add_argument(
        "--answer-seconds", type=float, default=0.0, help="before each answer of the REST API"
    )
    return parser


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    behaviour = FakeOptions(
        keys=options.keys.split(",") if options.keys else None,
        sink=options.sink,
        signing_key=options.signing_key,
        store_rate=options.store_rate,
        store_path=options.store,
    )
    async with FakeInngest(options.host, options.port, behaviour) as fake:
        fake.questions.seconds = options.answer_seconds
        sys.stdout.write(f"Fake Inngest listens on {fake.url}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
