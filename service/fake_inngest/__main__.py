"""`python -m service.fake_inngest`, a process that runs until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence

from service.fake_inngest.event_api import EventApi

_DEV_SERVER_PORT = 8288


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; 1 when the port is taken."""
    options = _parser().parse_args(arguments)
    keys = options.keys.split(",") if options.keys else None
    api = EventApi(options.host, options.port, keys=keys, sink=options.sink)
    try:
        asyncio.run(_serve(api))
    except OSError as error:
        sys.stderr.write(f"The fake Inngest can't listen: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service.fake_inngest", description="A fake of Inngest's Event API."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=_DEV_SERVER_PORT, help="0: any free one")
    parser.add_argument("--keys", help="event keys to accept, comma-separated; default: any")
    parser.add_argument("--sink", action="store_true", help="only count; for benchmarks")
    return parser


async def _serve(api: EventApi) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with api:
        sys.stdout.write(f"Fake Inngest listens on {api.url}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
