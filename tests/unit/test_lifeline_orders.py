"""What a parent asks of a child that is not yet ready for it."""

from __future__ import annotations

import asyncio
import socket

from service.processes.child_process import Lifeline

_HAND_OVER = b"h"


async def test_a_child_hands_over_also_when_it_was_asked_before_it_was_ready() -> None:
    parent, child = socket.socketpair()
    with parent, child:
        child.settimeout(0)
        line = Lifeline(child)
        listening = asyncio.create_task(line.listen(lambda: None))
        parent.send(_HAND_OVER)
        await asyncio.sleep(0.05)  # the child opens its outbox
        line.ready()
        async with asyncio.timeout(5):
            await line.hand_over(asyncio.Event())
        waiting = asyncio.create_task(line.may_go(asyncio.Event()))
        await asyncio.sleep(0.01)
        parent.send(b"g")
        assert await waiting
        again = asyncio.create_task(line.hand_over(asyncio.Event()))
        await asyncio.sleep(0.05)
        assert not again.done()
        again.cancel()
        listening.cancel()
