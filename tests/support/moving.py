"""A move."""

from __future__ import annotations

import asyncio

from inngest_outbox.bootstrap.operations import move_outbox
from inngest_outbox.outbox.move.move import Moved


async def move(source: str, target: str) -> Moved:
    return await asyncio.to_thread(
        move_outbox, source, target, actor="ada", progress=lambda done, whole: None
    )
