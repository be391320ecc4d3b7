"""What goes wrong in trials: each scenario runs one trial and gives its verdict.

`scale` stretches a scenario: 1 is the suite's, the soak takes more.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from inngest_outbox.dev.fake_inngest.faults import (
    Action,
    Cut,
    Drip,
    Hang,
    Match,
    Partial,
    Poison,
    Reset,
    ScriptedAnswer,
    Slow,
    TooLarge,
)
from inngest_outbox.dev.fake_inngest.server import FakeInngest
from tests.support.tcp_proxy import TcpProxy
from tests.support.trial import Trial, Verdict, trial

FAKE_INNGEST_FAULTS: dict[str, Action] = {
    "500": ScriptedAnswer(500),
    "502 of a proxy": ScriptedAnswer(
        502, body="<html>bad gateway</html>", content_type="text/html"
    ),
    "429 with Retry-After": ScriptedAnswer(429, retry_after=1),
    "401": ScriptedAnswer(401),
    "308": ScriptedAnswer(308, headers={"Location": "http://127.0.0.1:1/"}),
    "garbage": ScriptedAnswer(200, body='{"ids": ["01'),
    "reset unread": Reset("unread"),
    "reset after storing": Reset("stored"),
    "hang": Hang(),
    "hang after storing": Hang(store=True),
    "slow": Slow(seconds=1),
    "drip": Drip(seconds=0.1),
    "cut": Cut(answer_bytes=10),
    "partial": Partial(missing=2),
    "too large": TooLarge(max_events=3),
}
PROXY_FAULTS: dict[str, Callable[[TcpProxy], None]] = {
    "connections reset": TcpProxy.cut,
    "black hole": TcpProxy.swallow,
    "answers swallowed": TcpProxy.swallow_answers,
    "answers truncated": lambda proxy: proxy.truncate_answers(20),
}


@asynccontextmanager
async def proxied(path: Path, **changes: str) -> AsyncIterator[tuple[Trial, TcpProxy]]:
    """A trial whose service reaches the fake Inngest through a TCP proxy."""
    async with FakeInngest() as api, TcpProxy(int(api.url.rpartition(":")[2])) as proxy:
        way = f"http://127.0.0.1:{proxy.port}"
        async with trial(path, inngest=api, sends_to=way, **changes) as one:
            yield one, proxy


async def kill_rounds(
    path: Path, rounds: int, fault: Action | None = None, name: str = "SIGKILL"
) -> Verdict:
    """SIGKILL under load at random moments; between kills Inngest is well or in `fault`."""
    dice = random.Random(rounds)
    async with trial(path) as one, AsyncExitStack() as last:
        async with one.load.running():
            for number in range(rounds):
                async with one.serving() as service:
                    await one.load.takes(5)
                    if fault and number % 2:
                        one.inngest.faults.add(fault, times=None)
                    await asyncio.sleep(dice.uniform(0, 0.5))
                    service.kill()
                    await service.ended()
                    one.inngest.faults.clear()
            await last.enter_async_context(one.serving())
            await one.load.takes(5)
        recovery = await one.drained()
        return await _end(one, name, recovery)


async def faults(path: Path, scale: float, names: list[str] | None = None) -> list[Verdict]:
    """Each of the fake Inngest's faults, one after the other, over one service under load."""
    verdicts = []
    async with trial(path) as one, one.serving():
        for name in names or list(FAKE_INNGEST_FAULTS):
            async with one.load.running(2):
                await one.load.takes(5)
                one.inngest.faults.add(FAKE_INNGEST_FAULTS[name], times=None)
                await asyncio.sleep(scale)
                await one.load.takes(5)
                one.inngest.faults.clear()
                recovery = await one.drained()
            verdicts.append(await _end(one, name, recovery))
            one.load.accepted.clear()
            one.load.slowest_seconds = 0
    return verdicts


async def fault_sequence(path: Path, seconds: float) -> Verdict:
    """Faults follow each other, of Inngest and of the network, without time to recover."""
    dice = random.Random(7)
    async with proxied(path) as (one, proxy), one.serving():
        async with one.load.running():
            loop = asyncio.get_running_loop()
            end = loop.time() + seconds
            while loop.time() < end:
                if dice.random() < 0.7:
                    action = dice.choice(list(FAKE_INNGEST_FAULTS.values()))
                    one.inngest.faults.add(action, times=dice.choice((1, 2, 10, None)))
                else:
                    dice.choice(list(PROXY_FAULTS.values()))(proxy)
                await asyncio.sleep(dice.uniform(0.05, 1.5))
                proxy.heal()
                one.inngest.faults.clear()
                await asyncio.sleep(dice.choice((0, 0.05, 0.5)))
        recovery = await one.drained()
        return await _end(one, "faults in sequence", recovery)


async def outage(path: Path, seconds: float) -> Verdict:
    """Inngest is away while posts go on."""
    async with trial(path, OUTBOX_SEND_TIMEOUT="2s") as one, one.serving():
        async with one.load.running():
            await one.load.takes(5)
            await one.inngest.close()
            await asyncio.sleep(seconds)
        await one.inngest.start()
        recovery = await one.drained()
        return await _end(one, f"outage of {seconds:g} s", recovery)


async def proxy_faults(path: Path, scale: float) -> list[Verdict]:
    """Each of the proxy's faults, and the server gone, over one service under load."""
    verdicts = []
    async with proxied(path) as (one, proxy), one.serving():
        for name, fault in PROXY_FAULTS.items():
            async with one.load.running(2):
                await one.load.takes(5)
                fault(proxy)
                await asyncio.sleep(scale)
                await one.load.takes(5)
                proxy.heal()
                recovery = await one.drained()
            verdicts.append(await _end(one, name, recovery))
            one.load.accepted.clear()
        async with one.load.running(2):
            await one.load.takes(5)
            await one.inngest.close()
            await asyncio.sleep(scale)
            await one.load.takes(5)
            await one.inngest.start()
            recovery = await one.drained()
        verdicts.append(await _end(one, "server away", recovery))
    return verdicts


async def poison(path: Path, posts: int) -> Verdict:
    """Poison at random places under load: only it is dead, with the server's words."""
    async with trial(path) as one, one.serving():
        one.inngest.faults.add(Poison(error="bad event"), times=None, match=Match())
        one.load.poison_share = 0.02
        async with one.load.running():
            await one.load.takes(posts)
        bad = {key for key, name in one.load.accepted.items() if name.startswith("poison")}
        for key in bad:
            del one.load.accepted[key]
        recovery = await one.drained()
        await one.settled()
        rows = one.rows()
        poisoned, dead = one.ids("poison"), one.dead_ids()
        assert bad <= poisoned == dead, rows
        assert not any(one.inngest.ledger.times(key) for key in poisoned)
        return one.verdict("poison", recovery)


async def _end(one: Trial, name: str, recovery: float) -> Verdict:
    await one.settled()
    rows = one.rows()
    assert rows["pending"] == 0, rows
    return one.verdict(name, recovery, rows["dead"])
