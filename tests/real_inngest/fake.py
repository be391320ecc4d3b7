"""`python -m tests.real_inngest.fake --host … --port …`: the fake with the suite's functions."""

from __future__ import annotations

import argparse
import asyncio

from inngest_outbox.dev.fake_inngest.server import FakeInngest, FakeOptions
from tests.real_inngest.functions import functions
from tests.support.confirmed_delivery import SIGNING_KEY
from tests.support.inngest_process import EVENT_KEY

APPS = ("py", "js4")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    address = parser.parse_args()
    options = FakeOptions(keys=[EVENT_KEY], signing_key=SIGNING_KEY)
    async with FakeInngest(address.host, address.port, options) as fake:
        for app in APPS:
            fake.runs.declare(*functions(app))
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
