"""The requests in flight: who is counted, who has a sender, who blocks whom."""

from __future__ import annotations

import asyncio

import pytest

from service.relay.sends import InFlight, SendsInFlight
from tests.support.virtual_time import run_in_virtual_time


def test_what_failed_before_takes_no_sender_from_the_others_and_has_as_many() -> None:
    async def main() -> None:
        freed: list[bool] = []
        sends = SendsInFlight(2, freed.append)
        inside: list[bool] = []

        async def send(*, isolated: bool) -> None:
            async with sends.sender(sends.enter(7, isolated=isolated, events=3)):
                inside.append(isolated)
                await asyncio.sleep(1)

        tasks = [asyncio.create_task(send(isolated=one)) for one in [True] * 3 + [False] * 3]
        await asyncio.sleep(0.5)
        assert sorted(inside) == [False] * 2 + [True] * 2
        count = sends.count(7)
        assert (count.isolated, count.others, count.isolated_now, count.others_now) == (3, 3, 3, 3)
        assert (sends.count(8).isolated_now, sends.events) == (0, 18)
        assert sends.longest_seconds(2.0) == 2.0
        await asyncio.gather(*tasks)
        assert (sends.events, sorted(freed)) == (0, [False] * 3 + [True] * 3)
        assert sends.longest_seconds(9.0) == 0

    run_in_virtual_time(main())


def test_what_hangs_since_before_the_trouble_holds_no_sender_of_the_new_epoch() -> None:
    async def main() -> None:
        sends = SendsInFlight(1, lambda _: None)

        async def send(epoch: int) -> None:
            async with sends.sender(sends.enter(epoch, isolated=False, events=1)):
                await asyncio.sleep(1)

        hanging = asyncio.create_task(send(1))
        await asyncio.sleep(0)
        await asyncio.wait_for(send(2), 1.1)
        assert hanging.done()
        waiting = [asyncio.create_task(send(1)) for _ in range(2)]
        await asyncio.sleep(1.5)
        assert [task.done() for task in waiting] == [True, False]
        await asyncio.gather(*waiting)
        assert not sends.events

    run_in_virtual_time(main())


def test_a_request_is_counted_from_its_entry_until_it_leaves_or_ends() -> None:
    async def main() -> None:
        freed: list[bool] = []
        sends = SendsInFlight(1, freed.append)
        assert sends.count(7) == InFlight()
        planned = sends.enter(7, isolated=False, events=5)
        other = sends.enter(6, isolated=True, events=2)
        assert sends.count(7) == InFlight(isolated=1, others=1, isolated_now=0, others_now=1)
        assert (sends.events, sends.longest_seconds(9.0)) == (7, 0)
        sends.leave(planned, replaced=True)
        assert sends.count(6) == InFlight(isolated=1, isolated_now=1)
        assert (sends.events, freed) == (2, [])
        async with sends.sender(other):
            assert sends.count(6).isolated == 1
        assert (sends.count(6), sends.events, freed) == (InFlight(), 0, [True])
        for isolated in (True, False):
            sends.leave(sends.enter(7, isolated=isolated, events=1), replaced=False)
        assert (sends.count(7), sends.events, freed) == (InFlight(), 0, [True, True, False])

    run_in_virtual_time(main())


def test_the_longest_request_counts_from_when_it_had_a_sender() -> None:
    async def main() -> None:
        sends = SendsInFlight(1, lambda _: None)

        async def send(epoch: int) -> None:
            async with sends.sender(sends.enter(epoch, isolated=False, events=1)):
                await asyncio.sleep(10)

        tasks = [asyncio.create_task(send(1)), asyncio.create_task(send(1))]
        await asyncio.sleep(2)
        tasks.append(asyncio.create_task(send(2)))
        await asyncio.sleep(3)
        assert sends.longest_seconds(5.0) == 5.0
        await asyncio.sleep(6)
        assert sends.longest_seconds(11.0) == 9.0
        await asyncio.gather(*tasks)

    run_in_virtual_time(main())


def test_a_request_that_fails_or_is_cancelled_frees_its_sender() -> None:
    async def main() -> None:
        freed: list[bool] = []
        sends = SendsInFlight(1, freed.append)

        async def send(seconds: float) -> None:
            async with sends.sender(sends.enter(1, isolated=False, events=1)):
                await asyncio.sleep(seconds)
                raise RuntimeError

        hanging, waiting = (asyncio.create_task(send(99)) for _ in range(2))
        await asyncio.sleep(1)
        waiting.cancel()
        hanging.cancel()
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await asyncio.wait_for(send(1), 1.5)
        assert (sends.count(1), freed) == (InFlight(), [False] * 3)

    run_in_virtual_time(main())
